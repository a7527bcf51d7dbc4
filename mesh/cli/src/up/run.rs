//! Brings a mesh up in order, keeps it up, and takes it down in order.

use super::addresses::AddressBlock;
use super::children::{ChildEvent, ChildSpec, Role, keep_running};
use super::expect::{Observation, Observed};
use super::journal::Journal;
use super::launches::Launches;
use super::plan::{Plan, Settings};
use super::state::{Running, StateDir};
use super::templates::Templates;
use super::{UpArgs, UpError};
use crate::demo::shop;
use crate::fault::Fault;
use crate::local_mesh::{Expectation, Expected, LocalMesh};
use crate::output::{Format, Output};
use crate::traffic;
use mesh_api::admin::{Direction, Edge};
use mesh_platform::lock::LockFile;
use mesh_platform::{Platform, PlatformError, System, files, process, signals};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long the parts of the mesh may take until they are ready, and applications until they listen.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// A part that ended so often while the mesh comes up will not become ready by being started again.
const DEATHS_BEFORE_READY_MAX: u32 = 3;

/// How long a child may take to end by itself.
const GRACE: Duration = Duration::from_secs(5);

/// How often a part that is not ready yet is asked again.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// How often the table is drawn again on a terminal.
const DRAW_EVERY: Duration = Duration::from_secs(1);

/// Where the demo's files are expected in a checkout.
const DEMO: &str = "examples/shop/mesh.yaml";

/// Runs `mesh up` until it is asked to end, or `--for` is over.
///
/// # Errors
/// [`UpError`]; [`UpError::Unexpected`] if expectations of the file did not hold.
pub(crate) fn run(args: &UpArgs, output: &mut Output) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| UpError::System {
            what: "the supervisor cannot start",
            why: error.to_string(),
        })?;
    // One thread: children die with the thread that started them, and this one lives as long as the mesh.
    tokio::task::LocalSet::new().block_on(&runtime, up(args, output))
}

async fn up(args: &UpArgs, output: &mut Output) -> Result<(), Fault> {
    let state = StateDir::create(&args.state)?;
    let _lock = lock(&state)?;
    let (mesh, folder) = read_mesh(args, &state).map_err(|error| Fault::usage(&error))?;
    let plan = plan(args, mesh, &folder, &state)?;
    write_files(&plan, &state)?;

    let mut up = Supervisor::new(&plan, state.clone(), output)?;
    let begun = Instant::now();
    let result = match up.bring_up(&plan).await {
        Ok(()) => {
            up.announce(&plan, begun.elapsed(), &folder);
            up.keep_up(&plan, args.for_).await
        }
        Err(error) => Err(error.into()),
    };
    up.take_down(&plan).await;
    result
}

fn lock(state: &StateDir) -> Result<LockFile, UpError> {
    LockFile::acquire(&state.lock_file()).map_err(|error| match error {
        PlatformError::Locked { holder, .. } => UpError::AlreadyRunning {
            path: state.root().display().to_string(),
            pid: holder,
        },
        error => error.into(),
    })
}

/// The mesh to run and the folder its paths are relative to.
fn read_mesh(args: &UpArgs, state: &StateDir) -> Result<(LocalMesh, PathBuf), UpError> {
    let file = match &args.file {
        Some(file) => file.clone(),
        None if Path::new(DEMO).is_file() => PathBuf::from(DEMO),
        None => unpack_demo(state)?,
    };
    let broken = |why: String| UpError::MeshFile {
        path: file.display().to_string(),
        why,
    };
    let text = files::read_to_string(&file).map_err(|error| broken(error.to_string()))?;
    let mesh = LocalMesh::parse(&file.display().to_string(), &text)?;
    let absolute = std::path::absolute(&file).map_err(|error| broken(error.to_string()))?;
    let folder = absolute
        .parent()
        .map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
    for manifests in &mesh.manifests {
        if !folder.join(manifests).exists() {
            return Err(broken(format!(
                "its `spec.manifests` names `{}`, which does not exist",
                manifests.display()
            )));
        }
    }
    Ok((mesh, folder))
}

/// Writes the built-in demo below the state directory. Files that are there stay: they may have been edited.
fn unpack_demo(state: &StateDir) -> Result<PathBuf, UpError> {
    let folder = state.root().join("shop");
    for (name, text) in shop::FILES {
        let path = folder.join(name);
        let broken = |why: String| UpError::StateDir {
            path: path.display().to_string(),
            why,
        };
        if let Some(parent) = path.parent() {
            files::create_dir_private(parent).map_err(|error| broken(error.to_string()))?;
        }
        if !path.exists() {
            files::write_atomic(&path, text.as_bytes(), 0o600)
                .map_err(|error| broken(error.to_string()))?;
        }
    }
    Ok(folder.join("mesh.yaml"))
}

fn plan(args: &UpArgs, mesh: LocalMesh, folder: &Path, state: &StateDir) -> Result<Plan, UpError> {
    let system = |what, error: std::io::Error| UpError::System {
        what,
        why: error.to_string(),
    };
    let absolute = |path: &Option<PathBuf>| {
        let path = path.as_ref().map(std::path::absolute).transpose();
        path.map_err(|error| system("the working directory cannot be found", error))
    };
    let settings = Settings {
        issuer: absolute(&args.issuer)?,
        roots: absolute(&args.roots)?,
        token: args
            .token
            .absolute()
            .map_err(|error| system("the working directory cannot be found", error))?,
        trust_domain: args
            .trust_domain
            .clone()
            .unwrap_or_else(|| mesh.trust_domain.to_string()),
        svid_ttl: args.svid_ttl.clone(),
        audit_sample: args.audit_sample,
        default_policy: args.default_policy.clone(),
    };
    let program =
        std::env::current_exe().map_err(|error| system("this program cannot be found", error))?;
    let directory = if args.file.is_some() {
        folder.to_path_buf()
    } else {
        std::path::absolute(".")
            .map_err(|error| system("the working directory cannot be found", error))?
    };
    let block = AddressBlock::claim(state.root())?;
    Plan::new(
        mesh,
        folder,
        directory,
        state.clone(),
        block,
        settings,
        program,
    )
}

fn write_files(plan: &Plan, state: &StateDir) -> Result<(), UpError> {
    let write = |path: &Path, text: &str| {
        files::write_atomic(path, text.as_bytes(), 0o600).map_err(|error| UpError::StateDir {
            path: path.display().to_string(),
            why: error.to_string(),
        })
    };
    for (path, text) in plan.proxy_configs() {
        write(&path, &text)?;
    }
    let templates = Templates::read(&plan.manifests);
    write(
        &state.generated_manifests().join("pods.yaml"),
        &plan.generated_manifests(&templates),
    )
}

/// Everything that is alive.
struct Supervisor<'a> {
    output: &'a mut Output,
    state: StateDir,
    journal: Journal,
    running: Running,
    launches: Launches,
    events: mpsc::UnboundedReceiver<ChildEvent>,
    send: mpsc::UnboundedSender<ChildEvent>,
    children: Vec<RunningChild>,
    observed: Observed,
    /// Last word of each child that is down.
    down: BTreeMap<String, String>,
    /// How often each part of the mesh ended by itself.
    deaths: BTreeMap<String, u32>,
    /// Whether attempts count: not before everything listens.
    counting: bool,
}

struct RunningChild {
    name: String,
    role: Role,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl<'a> Supervisor<'a> {
    fn new(plan: &Plan, state: StateDir, output: &'a mut Output) -> Result<Self, UpError> {
        let pid = std::process::id();
        let now = System::new().wall_clock();
        let ticks = process::start_time_ticks(pid).unwrap_or(0);
        let (send, events) = mpsc::unbounded_channel();
        let journal = Journal::open(&state.audit_dir())?;
        let supervisor = Self {
            output,
            journal,
            running: plan.running(pid, ticks, now.to_string()),
            launches: Launches::new(state.ca_control()),
            state,
            events,
            send,
            children: Vec::new(),
            observed: Observed::default(),
            down: BTreeMap::new(),
            deaths: BTreeMap::new(),
            counting: false,
        };
        supervisor.write_running()?;
        let detail = format!(
            "mesh `{}`: trust domain {}, default policy {}, version {}",
            plan.mesh.name,
            supervisor.running.trust_domain,
            supervisor.running.default_policy,
            env!("CARGO_PKG_VERSION")
        );
        supervisor.journal.did("start", detail);
        Ok(supervisor)
    }

    async fn bring_up(&mut self, plan: &Plan) -> Result<(), UpError> {
        self.start(plan.ca());
        self.start(plan.controller());
        for proxy in plan.proxies() {
            self.start(proxy);
        }
        self.until_proxies_are_ready().await?;
        self.start(plan.witness());
        let (servers, drivers): (Vec<_>, Vec<_>) = plan
            .applications()
            .into_iter()
            .partition(|spec| spec.env.iter().any(|(key, _)| key == "MESH_APP_ADDR"));
        servers.into_iter().for_each(|spec| self.start(spec));
        self.until_applications_listen(plan).await;
        self.counting = true;
        drivers.into_iter().for_each(|spec| self.start(spec));
        Ok(())
    }

    fn start(&mut self, spec: ChildSpec) {
        let (stop, stopped) = watch::channel(false);
        let (name, role) = (spec.name.clone(), spec.role);
        let task = keep_running(
            spec,
            self.launches.clone(),
            self.send.clone(),
            stopped,
            GRACE,
        );
        self.children.push(RunningChild {
            name,
            role,
            stop,
            task: tokio::task::spawn_local(task),
        });
    }

    /// Waits for `/ready` of every proxy, which includes its identity and its policy.
    async fn until_proxies_are_ready(&mut self) -> Result<(), UpError> {
        let begun = Instant::now();
        let deadline = begun + READY_WITHIN;
        let sockets: Vec<_> = self
            .running
            .workloads
            .iter()
            .filter_map(|w| {
                w.proxy.as_ref().map(|proxy| {
                    (
                        format!("proxy {}/{}", w.namespace, w.name),
                        proxy.socket.clone(),
                    )
                })
            })
            .collect();
        for (part, socket) in sockets {
            loop {
                self.take_events();
                let why = match mesh_api::admin::get(&socket, "/ready").await {
                    Ok(_) => break,
                    Err(error) => error.to_string(),
                };
                let given_up = self
                    .deaths
                    .values()
                    .any(|deaths| *deaths >= DEATHS_BEFORE_READY_MAX);
                if given_up || Instant::now() >= deadline {
                    let culprit = self
                        .down
                        .iter()
                        .next()
                        .map(|(name, how)| (name.clone(), how.clone()));
                    let (part, why) = culprit.unwrap_or((part, why));
                    let log = self.state.log_file(&part);
                    return Err(UpError::NotReady {
                        part,
                        secs: begun.elapsed().as_secs(),
                        why: last_error(&log).unwrap_or(why),
                        log: log.display().to_string(),
                    });
                }
                tokio::select! {
                    () = tokio::time::sleep(ASK_EVERY) => {}
                    _ = signals::shutdown_requested() => {
                        return Err(UpError::System { what: "bringing the mesh up", why: "interrupted".to_owned() });
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits until applications accept connections. One that does not is shown, not fatal: its proxy answers 502.
    async fn until_applications_listen(&mut self, plan: &Plan) {
        let deadline = Instant::now() + READY_WITHIN;
        for address in plan.application_addresses() {
            while !answers(address).await {
                self.take_events();
                if Instant::now() >= deadline
                    || self.down.keys().any(|name| name.starts_with("app "))
                {
                    return;
                }
                tokio::time::sleep(ASK_EVERY).await;
            }
        }
    }

    fn announce(&mut self, plan: &Plan, took: Duration, folder: &Path) {
        let workloads = &self.running.workloads;
        let meshed = workloads
            .iter()
            .filter(|workload| workload.proxy.is_some())
            .count();
        self.output.talk(format!(
            "mesh `{}` is up: {meshed} workloads behind proxies, ready in {:.1} s\n  policies  {} (watched)\n  state     {}",
            plan.mesh.name,
            took.as_secs_f64(),
            folder.display(),
            self.state.root().display(),
        ));
        self.output.talk("next:");
        for command in self.next_commands(plan) {
            self.output.talk(format!("  {command}"));
        }
    }

    /// Three commands that make sense now; the first explains a call that the file expects to be denied.
    fn next_commands(&self, plan: &Plan) -> [String; 3] {
        let denied = plan
            .mesh
            .expectations
            .iter()
            .find(|e| e.expect == Expected::Deny);
        let explain = denied.and_then(|expectation| {
            let caller = plan.mesh.workload(&expectation.from)?;
            let upstream = caller
                .upstreams
                .iter()
                .find(|upstream| upstream.name == expectation.to)?;
            Some(format!(
                "mesh authz explain --from {}/{} --to {}/{}:{} --path /",
                caller.namespace,
                caller.service_account,
                upstream.namespace,
                upstream.service,
                upstream.port
            ))
        });
        [
            explain.unwrap_or_else(|| "mesh authz lint .".to_owned()),
            "mesh edges".to_owned(),
            "mesh check".to_owned(),
        ]
    }

    async fn keep_up(&mut self, plan: &Plan, for_: Option<Duration>) -> Result<(), Fault> {
        let end = for_.map(|time| Instant::now() + time);
        let mut draw = tokio::time::interval(DRAW_EVERY);
        let shutdown = signals::shutdown_requested();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                event = self.events.recv() => {
                    if let Some(event) = event {
                        self.on_event(event);
                    }
                }
                _ = draw.tick() => {
                    if self.output.is_terminal() {
                        let edges = traffic::counted(&self.running).await;
                        self.output.redraw(&traffic::inbound_table(&edges, &self.running.trust_domain).text())?;
                    }
                }
                () = until(end) => break,
                _ = &mut shutdown => break,
            }
        }
        self.take_events();
        self.verdict(plan, for_.is_some()).await
    }

    /// Prints the last table and holds the expectations against what was seen.
    async fn verdict(&mut self, plan: &Plan, judged: bool) -> Result<(), Fault> {
        let edges = traffic::counted(&self.running).await;
        self.output.table(
            &traffic::inbound_table(&edges, &self.running.trust_domain),
            Format::Text,
        )?;
        let mut failed = 0;
        for expectation in &plan.mesh.expectations {
            let protocol = format!("{:?}", expectation.protocol).to_ascii_lowercase();
            let wanted = format!("{:?}", expectation.expect).to_ascii_lowercase();
            let outcome = expectation.outcome.as_deref().unwrap_or("any");
            let edge = format!(
                "{} -> {} {protocol}: {wanted} ({outcome})",
                expectation.from, expectation.to
            );
            let identities = identities(plan, expectation, &edges);
            match self.observed.check(expectation) {
                Ok(count) => self
                    .output
                    .line(format!("ok    {edge}, {count} times\n      {identities}"))?,
                Err(why) => {
                    failed += 1;
                    self.output
                        .line(format!("FAIL  {edge}: {why}\n      {identities}"))?;
                }
            }
        }
        if failed > 0 && judged {
            return Err(UpError::Unexpected {
                failed,
                all: plan.mesh.expectations.len(),
            }
            .into());
        }
        self.output.flush()
    }

    fn take_events(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.on_event(event);
        }
    }

    fn on_event(&mut self, event: ChildEvent) {
        match event {
            ChildEvent::Started { name, pid } => {
                if self.down.remove(&name).is_some() {
                    self.output
                        .talk(format!("{name} is back, as process {pid}"));
                }
                if name == "ca" {
                    let launches = self.launches.clone();
                    tokio::task::spawn_local(async move { launches.replay().await });
                }
                self.set_pid(&name, pid);
            }
            ChildEvent::Ended {
                name,
                how,
                well,
                again,
            } => {
                self.set_pid(&name, 0);
                if !well {
                    let again = again.map_or(String::new(), |pause| {
                        format!("; again in {:.1} s", pause.as_secs_f64())
                    });
                    let log = self.state.log_file(&name);
                    self.output.talk(format!(
                        "{name} ended: {how}{again} (log: {})",
                        log.display()
                    ));
                    if !name.starts_with("app ") {
                        let detail = format!("{name}: {how}");
                        self.journal.happened("part-ended", detail);
                        *self.deaths.entry(name.clone()).or_default() += 1;
                    }
                    self.down.insert(name, how);
                }
            }
            ChildEvent::Line { name, line } => match serde_json::from_str::<Observation>(&line) {
                Ok(observation) if self.counting => self.observed.add(&observation),
                Ok(_) => {}
                Err(_) => self.keep_line(&name, &line),
            },
        }
    }

    /// Puts what an application says on stdout beside what it says on stderr.
    fn keep_line(&mut self, name: &str, line: &str) {
        let log = self.state.log_file(name);
        let written = std::fs::File::options()
            .append(true)
            .open(&log)
            .and_then(|mut file| writeln!(file, "{line}"));
        if let Err(error) = written {
            self.output.talk(format!("{}: {error}", log.display()));
        }
    }

    fn set_pid(&mut self, name: &str, pid: u32) {
        match name.split_once(' ') {
            None if name == "witness" => {}
            None if name == "ca" => self.running.ca.pid = pid,
            None => self.running.controller.pid = pid,
            Some((kind, key)) => {
                let workload = self
                    .running
                    .workloads
                    .iter_mut()
                    .find(|w| key == format!("{}/{}", w.namespace, w.name));
                match workload {
                    Some(workload) if kind == "app" => workload.app_pid = pid,
                    Some(workload) => {
                        if let Some(proxy) = &mut workload.proxy {
                            proxy.pid = pid;
                        }
                    }
                    None => {}
                }
            }
        }
        if let Err(error) = self.write_running() {
            self.output.talk(error);
        }
    }

    fn write_running(&self) -> Result<(), UpError> {
        let path = self.state.running_file();
        let broken = |why: String| UpError::StateDir {
            path: path.display().to_string(),
            why,
        };
        let text =
            serde_json::to_vec_pretty(&self.running).map_err(|error| broken(error.to_string()))?;
        files::write_atomic(&path, &text, 0o600).map_err(|error| broken(error.to_string()))
    }

    /// Ends applications first, then proxies, then controller and CA; removes what says that a mesh runs.
    async fn take_down(&mut self, plan: &Plan) {
        let detail = format!("mesh `{}`", plan.mesh.name);
        self.journal.did("end", detail);
        let mut children = std::mem::take(&mut self.children);
        let of_kind = |child: &RunningChild| match (child.role, child.name.starts_with("proxy ")) {
            (Role::Application, _) => 0,
            (Role::Mesh, true) => 1,
            (Role::Mesh, false) => 2,
        };
        children.sort_by_key(of_kind);
        let mut wave = Vec::new();
        let mut kind = 0;
        for child in children {
            if of_kind(&child) != kind {
                kind = of_kind(&child);
                join_all(&mut wave).await;
            }
            child.stop.send_replace(true);
            wave.push(child.task);
        }
        join_all(&mut wave).await;
        let sockets = self
            .running
            .workloads
            .iter()
            .filter_map(|w| w.proxy.as_ref())
            .map(|proxy| proxy.socket.clone());
        let control = [
            self.state.workload_api(),
            self.state.ca_control(),
            self.state.ca_admin(),
            self.state.trust_socket(),
            self.state.controller_socket(),
        ];
        for path in sockets.chain(control) {
            // Most are gone: each process removes its own.
            let _ = std::fs::remove_file(path);
        }
        // What ran is kept for reports; who looks for a running mesh does not find it under this name.
        let (running, ended) = (self.state.running_file(), self.state.ended_file());
        if std::fs::rename(&running, ended).is_err() {
            let _ = std::fs::remove_file(running);
        }
        self.output
            .talk(format!("mesh `{}` is down", plan.mesh.name));
    }
}

/// Who the server's proxy saw, and who the client's proxy found there: each from the other's certificate.
fn identities(plan: &Plan, expectation: &Expectation, edges: &[Edge]) -> String {
    let Some(caller) = plan.mesh.workload(&expectation.from) else {
        return String::new();
    };
    let Some(upstream) = caller
        .upstreams
        .iter()
        .find(|upstream| upstream.name == expectation.to)
    else {
        return String::new();
    };
    let service = format!(
        "{}/{}:{}",
        upstream.namespace, upstream.service, upstream.port
    );
    let account = format!("/ns/{}/sa/{}", caller.namespace, caller.service_account);
    let from = format!("{}/{}", caller.namespace, caller.name);
    let is_caller = |peer: &str| {
        if caller.meshed {
            peer.ends_with(&account)
        } else {
            !peer.starts_with("spiffe://")
        }
    };
    let seen = edges.iter().find(|edge| {
        edge.direction == Direction::Inbound && edge.target == service && is_caller(&edge.peer)
    });
    let found = edges.iter().find(|edge| {
        edge.direction == Direction::Outbound && edge.target == service && edge.local == from
    });
    let seen = seen.map_or("nobody", |edge| edge.peer.as_str());
    let found = found.map_or("the pod, in plaintext", |edge| edge.peer.as_str());
    format!("{seen} -> {found}")
}

async fn join_all(tasks: &mut Vec<JoinHandle<()>>) {
    for task in tasks.drain(..) {
        // A task that panicked has dropped its child, which kills it.
        let _ = task.await;
    }
}

/// The last coded error in a log, as a part says it before it ends.
fn last_error(log: &Path) -> Option<String> {
    let text = files::read_to_string(log).ok()?;
    let line = text
        .lines()
        .rev()
        .find(|line| line.starts_with("error MESH-"))?;
    line.strip_prefix("error ").map(str::to_owned)
}

async fn answers(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_ok()
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}
