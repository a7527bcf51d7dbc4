//! What an agent is told of, whole with each change, and what it reports.

use super::desk::{CallingNode, NodesDesk};
use super::{agent_instance, is_of, process_instance};
use crate::agent::nobody;
use crate::denials::Follower;
use crate::jwt::bundles_with;
use crate::launch::coded;
use crate::limits::NODE_LOOK;
use mesh_api::proto::{NodeReport, NodeUpdate};
use mesh_issuance::rotation::Holder;
use mesh_trust::{Denied, SpiffeId};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

impl NodesDesk {
    /// Tells the agent of `calling` everything, until it goes, is denied, or is no node any more.
    pub(super) async fn tell(
        &self,
        calling: &CallingNode,
        mut reports: Streaming<NodeReport>,
        out: &mpsc::Sender<Result<NodeUpdate, Status>>,
    ) -> Result<(), Status> {
        let _connected = self.book.connected(&calling.name);
        let heard = Heard {
            desk: self,
            calling,
        };
        let mut foreign = self.foreign.clone();
        let (mut keys, mut denials) = (self.tokens.bundle(), self.denials.lists.clone());
        let (mut book, mut trust) = (self.book.follow(), self.issuing.published());
        let mut stopping = self.stopping.clone();
        let stopped = || Status::unavailable("the CA is stopping");
        let mut sent = None;
        loop {
            foreign.mark_unchanged();
            keys.mark_unchanged();
            denials.mark_unchanged();
            book.mark_unchanged();
            trust.mark_unchanged();
            let update = self.update(calling).await?;
            if sent.as_ref() != Some(&update) {
                sent = Some(update.clone());
                if out.send(Ok(update)).await.is_err() {
                    return Ok(());
                }
            }
            let mut said = None;
            let changed = tokio::select! {
                report = reports.message() => match report? {
                    Some(report) => {
                        said = Some(report);
                        Ok(())
                    }
                    None => return Ok(()),
                },
                changed = foreign.changed() => changed,
                changed = keys.changed() => changed,
                changed = denials.changed() => changed,
                changed = book.changed() => changed,
                changed = trust.changed() => changed,
                // Leaves that came and went while nothing else changed.
                () = tokio::time::sleep(NODE_LOOK) => Ok(()),
                _ = stopping.wait_for(|stopping| *stopping) => return Err(stopped()),
                () = out.closed() => return Ok(()),
            };
            if let Some(report) = said {
                heard.report(report).await?;
            }
            changed.map_err(|_| stopped())?;
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

/// Takes an agent's reports. What it said is forgotten when it goes.
struct Heard<'a> {
    desk: &'a NodesDesk,
    calling: &'a CallingNode,
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
            let instances: Vec<String> = processes
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
        let node = &self.calling.name;
        let of_node = |who: &Follower| is_of(node, &who.instance);
        self.desk.denials.enforcers.report(of_node, Vec::new());
    }
}
