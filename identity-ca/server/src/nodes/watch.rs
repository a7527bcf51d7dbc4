//! What an agent is told of, whole with each change, and what it reports.

use super::book::Connected;
use super::desk::{CallingNode, NodesDesk};
use super::{agent_instance, is_of, process_instance};
use crate::agent::nobody;
use crate::denials::Follower;
use crate::error::coded;
use crate::federation::Foreign;
use crate::jwt::bundles_with;
use crate::trust::Published;
use mesh_api::proto::{NodeReport, NodeUpdate};
use mesh_issuance::attestation::node::Nodes;
use mesh_issuance::rotation::Holder;
use mesh_trust::jwt::JwtBundle;
use mesh_trust::{Denials, Denied, SpiffeId};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};

/// What an update is made of, as it changes. Which leaves a rotation wants replaced changes with its steps alone: what is
/// issued after a step is issued under the right authority.
struct Changes {
    foreign: watch::Receiver<Arc<Foreign>>,
    keys: watch::Receiver<Arc<JwtBundle>>,
    denials: watch::Receiver<Arc<Denials>>,
    book: watch::Receiver<Arc<Nodes>>,
    trust: watch::Receiver<Arc<Published>>,
}

impl Changes {
    /// Marks everything as seen.
    fn seen(&mut self) {
        self.foreign.mark_unchanged();
        self.keys.mark_unchanged();
        self.denials.mark_unchanged();
        self.book.mark_unchanged();
        self.trust.mark_unchanged();
    }

    /// Ready once anything has changed since.
    async fn changed(&mut self) -> Result<(), Status> {
        let changed = tokio::select! {
            changed = self.foreign.changed() => changed,
            changed = self.keys.changed() => changed,
            changed = self.denials.changed() => changed,
            changed = self.book.changed() => changed,
            changed = self.trust.changed() => changed,
        };
        changed.map_err(|_| Status::unavailable("the CA is stopping"))
    }
}

impl NodesDesk {
    /// Tells the agent of `calling` everything, until it goes, is denied, or is no node any more.
    pub(super) async fn tell(
        &self,
        calling: &CallingNode,
        mut reports: Streaming<NodeReport>,
        out: &mpsc::Sender<Result<NodeUpdate, Status>>,
    ) -> Result<(), Status> {
        let heard = Heard {
            desk: self,
            calling,
            connected: self.book.connected(&calling.name),
        };
        let mut changes = Changes {
            foreign: self.foreign.clone(),
            keys: self.tokens.bundle(),
            denials: self.denials.lists.clone(),
            book: self.book.follow(),
            trust: self.issuing.published(),
        };
        let mut sent = None;
        loop {
            changes.seen();
            let update = self.update(calling).await?;
            if sent.as_ref() != Some(&update) {
                sent = Some(update.clone());
                if out.send(Ok(update)).await.is_err() {
                    return Ok(());
                }
            }
            // What is reported changes nothing of what is told.
            while let Next::Report(report) = self.next(&mut reports, &mut changes, out).await? {
                heard.report(report).await?;
            }
        }
    }

    async fn next(
        &self,
        reports: &mut Streaming<NodeReport>,
        changes: &mut Changes,
        out: &mpsc::Sender<Result<NodeUpdate, Status>>,
    ) -> Result<Next, Status> {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            report = reports.message() => match report? {
                Some(report) => Ok(Next::Report(report)),
                None => Err(Status::cancelled("the agent has gone")),
            },
            changed = changes.changed() => changed.map(|()| Next::Update),
            _ = stopping.wait_for(|stopping| *stopping) => Err(Status::unavailable("the CA is stopping")),
            () = out.closed() => Err(Status::cancelled("the agent has gone")),
        }
    }

    /// Everything, as it is now.
    async fn update(&self, calling: &CallingNode) -> Result<NodeUpdate, Status> {
        let (_, node) = self
            .book
            .by_identity(&calling.identity)
            .ok_or_else(nobody)?;
        let replace = self.to_replace(&calling.name).await?;
        let denials = self.denials.lists.borrow().clone();
        let machine = Denied::Node(calling.name.clone());
        if denials.contains(&machine) || denials.denies_identity(&calling.identity) {
            return Err(nobody());
        }
        let keys = bundles_with(&self.tokens.bundle().borrow(), &self.foreign.borrow());
        let keys = keys
            .iter()
            .map(|bundle| (bundle.domain().to_string(), bundle.to_json().into_bytes()));
        Ok(NodeUpdate {
            bundles_json: self.bundles_json(),
            jwt_bundles: keys.collect(),
            denials_json: denials.to_json().into_bytes(),
            replace,
            workloads: node.workloads.iter().map(ToString::to_string).collect(),
        })
    }

    /// Serial numbers of the newest leaves of a node and its processes that are under another root than their holders
    /// belong under.
    async fn to_replace(&self, node: &str) -> Result<Vec<String>, Status> {
        let node = node.to_owned();
        let found = self.issuing.with_desk(move |desk| {
            let (state, roster) = (&desk.trust.state, &desk.trust.roster);
            let holders = roster.verifiers().map(|(holder, _)| holder);
            let of_node = holders.filter(|holder| is_of(&node, &holder.instance));
            let newest =
                of_node.filter_map(|holder| Some((holder, roster.leaves_of(holder).last()?)));
            let misplaced =
                newest.filter(|(holder, leaf)| leaf.authority != *state.authority_for(holder));
            misplaced.map(|(_, leaf)| leaf.serial.clone()).collect()
        });
        found
            .await
            .map_err(|error| Status::unavailable(coded(&error)))
    }
}

/// What there is to do next on an agent's stream.
enum Next {
    Report(NodeReport),
    /// Something has changed that it is told of.
    Update,
}

/// Takes an agent's reports. What it said is forgotten when it goes.
struct Heard<'a> {
    desk: &'a NodesDesk,
    calling: &'a CallingNode,
    connected: Connected,
}

impl Heard<'_> {
    async fn report(&self, report: NodeReport) -> Result<(), Status> {
        let NodeReport {
            denials_generation,
            enforcers,
            ended_processes,
        } = report;
        let node = &self.calling.name;
        let agent = Follower {
            id: self.calling.identity.clone(),
            pid: 0,
            instance: agent_instance(node),
        };
        let mut followers = vec![(agent, denials_generation)];
        let mut newest = denials_generation;
        for one in enforcers {
            let Ok(id) = SpiffeId::parse(&one.spiffe_id) else {
                continue;
            };
            // It reports of its own workloads, and of nobody else's.
            if self.calling.node.speaks_for(self.desk.book.domain(), &id) {
                newest = newest.max(one.generation);
                let instance = process_instance(node, &one.pid.to_string());
                let follower = Follower {
                    id,
                    pid: 0,
                    instance,
                };
                followers.push((follower, one.generation));
            }
        }
        let of_node = |who: &Follower| is_of(node, &who.instance);
        self.desk.denials.enforcers.report(of_node, followers);
        if let Some(own) = &self.desk.denials.own {
            own.catch_up(newest);
        }
        self.ended(ended_processes).await
    }

    /// Such processes verify nobody and show nothing any more: no rotation waits for them.
    async fn ended(&self, processes: Vec<String>) -> Result<(), Status> {
        if processes.is_empty() {
            return Ok(());
        }
        let node = self.calling.name.clone();
        let forgotten = self.desk.issuing.with_desk(move |desk| {
            let instances: HashSet<String> = processes
                .iter()
                .map(|process| process_instance(&node, process))
                .collect();
            let roster = &mut desk.trust.roster;
            let holders = roster.verifiers().map(|(holder, _)| holder.clone());
            let gone: Vec<Holder> = holders
                .filter(|holder| instances.contains(&holder.instance))
                .collect();
            gone.iter().for_each(|holder| roster.ended(holder));
        });
        forgotten
            .await
            .map_err(|error| Status::unavailable(coded(&error)))?;
        self.desk.issuing.trust_moved();
        Ok(())
    }
}

impl Drop for Heard<'_> {
    fn drop(&mut self) {
        let (node, enforcers) = (&self.calling.name, &self.desk.denials.enforcers);
        let of_node = |who: &Follower| is_of(node, &who.instance);
        // An agent that connected anew has said everything again, before the end of its first stream was noticed.
        self.connected
            .leave(|| enforcers.report(of_node, Vec::new()));
    }
}
