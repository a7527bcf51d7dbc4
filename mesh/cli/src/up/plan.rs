//! From `mesh.yaml` to what must run: addresses, commands, environments, proxy configurations, generated manifests.
//!
//! Nothing here starts or writes anything; the same file and state directory give the same plan.

use super::UpError;
use super::addresses::{ADMIN_PORT, AddressBlock, MESH_PORT, UPSTREAMS_MAX, WORKLOADS_MAX};
use super::children::{ChildIdentity, ChildSpec, Role};
use super::state::{
    Running, RunningCa, RunningController, RunningProxy, RunningWorkload, StateDir,
};
use super::templates::Templates;
use crate::local_mesh::{LocalMesh, Outside, Workload};
use crate::signer::TokenArgs;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What the command line adds to `mesh.yaml`.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Trust domain of this mesh.
    pub(crate) trust_domain: String,
    /// Folder in which others keep the issuer, absolute.
    pub(crate) issuer: Option<PathBuf>,
    /// File in which others keep the roots, absolute.
    pub(crate) roots: Option<PathBuf>,
    /// The PKCS #11 token of the CA's keys, with absolute paths; or none.
    pub(crate) token: TokenArgs,
    /// Lifetime of SVIDs as the command line has it, `24h`.
    pub(crate) svid_ttl: String,
    /// Share of allowed requests that is recorded, 0 to 1.
    pub(crate) audit_sample: f64,
    /// Default policy of ports without a Server.
    pub(crate) default_policy: String,
}

/// Everything that must run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The mesh as its file has it.
    pub(crate) mesh: LocalMesh,
    /// Files and folders of policy, absolute.
    pub(crate) manifests: Vec<PathBuf>,
    /// Folder of the mesh's file.
    folder: PathBuf,
    state: StateDir,
    block: AddressBlock,
    settings: Settings,
    program: PathBuf,
    directory: PathBuf,
}

impl Plan {
    /// Plans `mesh`, whose file stands in `folder`, for processes that start in `directory`.
    ///
    /// # Errors
    /// [`UpError::TooMany`] if it has more workloads or upstreams than addresses.
    pub(crate) fn new(
        mesh: LocalMesh,
        folder: &Path,
        directory: PathBuf,
        state: StateDir,
        block: AddressBlock,
        settings: Settings,
        program: PathBuf,
    ) -> Result<Self, UpError> {
        let most_upstreams = mesh
            .workloads
            .iter()
            .map(|w| w.upstreams.len() + w.outside.len())
            .max()
            .unwrap_or(0);
        if mesh.workloads.len() > WORKLOADS_MAX || most_upstreams > UPSTREAMS_MAX {
            return Err(UpError::TooMany {
                workloads: mesh.workloads.len(),
                upstreams: most_upstreams,
            });
        }
        let manifests = mesh
            .manifests
            .iter()
            .map(|path| folder.join(path))
            .collect();
        Ok(Self {
            mesh,
            manifests,
            folder: folder.to_path_buf(),
            state,
            block,
            settings,
            program,
            directory,
        })
    }

    /// The CA, with the agent in it.
    pub(crate) fn ca(&self) -> ChildSpec {
        let mut command = self.own(&["ca", "--trust-domain", &self.settings.trust_domain]);
        command.extend(self.own_flag("--dir", &self.state.root().join("ca")));
        command.extend(self.own_flag("--workload-api", &self.state.workload_api()));
        command.extend(self.own_flag("--control", &self.state.ca_control()));
        command.extend(self.own_flag("--trust", &self.state.trust_socket()));
        command.extend(self.own_flag("--admin", &self.state.ca_admin()));
        command.extend(["--svid-ttl".into(), self.settings.svid_ttl.clone().into()]);
        if let Some(issuer) = &self.settings.issuer {
            command.extend(self.own_flag("--issuer", issuer));
        }
        if let Some(roots) = &self.settings.roots {
            command.extend(self.own_flag("--roots", roots));
        }
        command.extend(self.settings.token.flags());
        if let Some(endpoint) = &self.mesh.bundle_endpoint {
            command.extend(endpoint.flags(&self.folder));
        }
        self.mesh_child("ca", command, None)
    }

    /// The controller.
    pub(crate) fn controller(&self) -> ChildSpec {
        let mut command = self.own(&["controller", "--trust-domain", &self.settings.trust_domain]);
        command.extend([
            "--listen".into(),
            self.block.controller().to_string().into(),
        ]);
        command.extend([
            "--default-policy".into(),
            self.settings.default_policy.clone().into(),
        ]);
        command.extend(self.own_flag("--workload-api", &self.state.workload_api()));
        command.extend(self.own_flag("--socket", &self.state.controller_socket()));
        command.extend(self.own_flag("--state", self.state.root()));
        for path in self.policy_sources() {
            command.extend(self.own_flag("--manifests", &path));
        }
        let identity = ChildIdentity {
            namespace: "mesh-system".to_owned(),
            service_account: "mesh-controller".to_owned(),
            workload: "mesh-controller".to_owned(),
            descendants: false,
        };
        self.mesh_child("controller", command, Some(identity))
    }

    /// The second keeper of all logs.
    pub(crate) fn witness(&self) -> ChildSpec {
        let mut command = self.own(&["audit", "witness"]);
        command.extend(self.own_flag("--dir", &self.state.root().join("witness")));
        command.push(self.state.root().join("audit").into());
        command.push(self.state.root().join("ca").into());
        self.mesh_child("witness", command, None)
    }

    /// The proxies of all meshed workloads.
    pub(crate) fn proxies(&self) -> Vec<ChildSpec> {
        let meshed = self
            .mesh
            .workloads
            .iter()
            .filter(|workload| workload.meshed);
        meshed
            .map(|workload| {
                let mut command = self.own(&["proxy"]);
                command.extend(self.own_flag(
                    "--config",
                    &self.state.proxy_config(&workload.namespace, &workload.name),
                ));
                self.mesh_child(
                    &format!("proxy {}", key(workload)),
                    command,
                    Some(identity(workload, false)),
                )
            })
            .collect()
    }

    /// The applications, those that listen first.
    pub(crate) fn applications(&self) -> Vec<ChildSpec> {
        let mut numbered: Vec<_> = self.mesh.workloads.iter().enumerate().collect();
        numbered.sort_by_key(|(_, workload)| workload.ports.is_empty());
        numbered
            .into_iter()
            .map(|(index, workload)| self.application(index, workload))
            .collect()
    }

    /// Where applications must answer before the mesh is called ready.
    pub(crate) fn application_addresses(&self) -> Vec<SocketAddr> {
        let numbered = self.mesh.workloads.iter().enumerate();
        numbered
            .flat_map(|(index, workload)| {
                workload
                    .ports
                    .iter()
                    .map(move |port| self.app_address(index, port.port))
            })
            .collect()
    }

    /// Folders and files that hold policy: the user's, then ours.
    pub(crate) fn policy_sources(&self) -> Vec<PathBuf> {
        self.manifests
            .iter()
            .cloned()
            .chain([self.state.generated_manifests()])
            .collect()
    }

    /// Configuration files of the proxies, as (path, text).
    pub(crate) fn proxy_configs(&self) -> Vec<(PathBuf, String)> {
        let numbered = self
            .mesh
            .workloads
            .iter()
            .enumerate()
            .filter(|(_, workload)| workload.meshed);
        numbered
            .map(|(index, workload)| {
                let path = self.state.proxy_config(&workload.namespace, &workload.name);
                // JSON is YAML: the reader is the same, and nothing needs quoting rules of ours.
                (path, format!("{:#}\n", self.proxy_config(index, workload)))
            })
            .collect()
    }

    /// Pods for all meshed workloads, and Services for those that the user's manifests do not have.
    pub(crate) fn generated_manifests(&self, templates: &Templates) -> String {
        let mut documents = Vec::new();
        for (index, workload) in self
            .mesh
            .workloads
            .iter()
            .enumerate()
            .filter(|(_, workload)| workload.meshed)
        {
            documents.push(self.pod(index, workload, templates));
            if !workload.ports.is_empty()
                && !templates.has_service(&workload.namespace, &workload.name)
            {
                documents.push(service(workload));
            }
        }
        documents
            .iter()
            .map(|document| format!("---\n{document:#}\n"))
            .collect()
    }

    /// What `run/mesh.json` says before anything has a pid.
    pub(crate) fn running(&self, pid: u32, start_time_ticks: u64, started_at: String) -> Running {
        let numbered = self.mesh.workloads.iter().enumerate();
        Running {
            pid,
            start_time_ticks,
            started_at,
            state_dir: self.state.root().to_path_buf(),
            trust_domain: self.settings.trust_domain.clone(),
            manifests: self.policy_sources(),
            default_policy: self.settings.default_policy.clone(),
            ca: RunningCa {
                pid: 0,
                dir: self.state.root().join("ca"),
                workload_api: self.state.workload_api(),
                trust_socket: Some(self.state.trust_socket()),
            },
            controller: RunningController {
                pid: 0,
                address: self.block.controller(),
                socket: self.state.controller_socket(),
            },
            workloads: numbered
                .map(|(index, workload)| RunningWorkload {
                    namespace: workload.namespace.clone(),
                    name: workload.name.clone(),
                    service_account: workload.service_account.clone(),
                    pod_ip: self.block.pod(index),
                    app_pid: 0,
                    proxy: workload.meshed.then(|| self.running_proxy(index, workload)),
                })
                .collect(),
        }
    }

    fn running_proxy(&self, index: usize, workload: &Workload) -> RunningProxy {
        let upstreams = workload.upstreams.iter().enumerate();
        RunningProxy {
            pid: 0,
            mesh: SocketAddr::new(self.block.pod(index), MESH_PORT),
            admin: SocketAddr::new(self.block.pod(index), ADMIN_PORT),
            socket: self.state.proxy_socket(&workload.namespace, &workload.name),
            audit_log: self.state.audit_log(&workload.namespace, &workload.name),
            upstreams: upstreams
                .map(|(number, upstream)| {
                    let service = format!(
                        "{}/{}:{}",
                        upstream.namespace, upstream.service, upstream.port
                    );
                    (
                        service,
                        SocketAddr::new(self.block.upstream(index, number), upstream.port),
                    )
                })
                .collect(),
        }
    }

    /// Where the proxy of a workload listens for what is outside: behind its upstreams.
    fn outside(
        &self,
        index: usize,
        workload: &Workload,
        number: usize,
        outside: &Outside,
    ) -> SocketAddr {
        let place = workload.upstreams.len() + number;
        SocketAddr::new(self.block.upstream(index, place), outside.address.port())
    }

    fn proxy_config(&self, index: usize, workload: &Workload) -> Value {
        let pod = self.block.pod(index);
        let ports = workload.ports.iter().map(|port| {
            json!({
                "listen": SocketAddr::new(pod, port.port),
                "port": port.port,
                "app": self.app_address(index, port.port),
            })
        });
        let upstreams = workload.upstreams.iter().enumerate().map(|(number, upstream)| {
            json!({
                "listen": SocketAddr::new(self.block.upstream(index, number), upstream.port),
                "service": format!("{}/{}:{}", upstream.namespace, upstream.service, upstream.port),
            })
        });
        let outside = workload
            .outside
            .iter()
            .enumerate()
            .map(|(number, outside)| {
                json!({
                    "listen": self.outside(index, workload, number, outside),
                    "outside": outside.address,
                })
            });
        let trust_domain = &self.settings.trust_domain;
        let mut config = json!({
            "workload": { "namespace": workload.namespace, "name": workload.name },
            "trustDomain": trust_domain,
            "identity": { "workloadApi": format!("unix://{}", self.state.workload_api().display()) },
            "policy": { "controller": {
                "address": self.block.controller(),
                "identity": format!("spiffe://{trust_domain}/ns/mesh-system/sa/mesh-controller"),
            } },
            "inbound": { "mesh": SocketAddr::new(pod, MESH_PORT), "ports": ports.collect::<Vec<_>>() },
            "outbound": upstreams.chain(outside).collect::<Vec<_>>(),
            "admin": {
                "listen": SocketAddr::new(pod, ADMIN_PORT),
                "socket": self.state.proxy_socket(&workload.namespace, &workload.name),
            },
            "audit": {
                "file": self.state.audit_log(&workload.namespace, &workload.name),
                "allowSample": self.settings.audit_sample,
            },
        });
        if let Some(traces) = &self.mesh.traces {
            set(&mut config, "traces", json!(traces));
        }
        config
    }

    fn pod(&self, index: usize, workload: &Workload, templates: &Templates) -> Value {
        let ports = workload
            .ports
            .iter()
            .map(|port| json!({ "name": port.name, "containerPort": port.port }));
        let own = json!({
            "metadata": { "labels": workload.labels },
            "spec": {
                "serviceAccountName": workload.service_account,
                "containers": [{ "name": "app", "image": "local", "ports": ports.collect::<Vec<_>>() }],
            },
        });
        let (mut pod, owner) = match templates.deployment(&workload.namespace, &workload.name) {
            Some(template) => (template.clone(), Some("Deployment")),
            None => (own, None),
        };
        let address = self.block.pod(index);
        set(&mut pod, "apiVersion", json!("v1"));
        set(&mut pod, "kind", json!("Pod"));
        set(
            &mut pod,
            "status",
            json!({ "podIP": address, "podIPs": [{ "ip": address }], "hostIP": "127.0.0.1" }),
        );
        if let Some(metadata) = pod.get_mut("metadata") {
            set(metadata, "name", json!(workload.name));
            set(metadata, "namespace", json!(workload.namespace));
            if let Some(kind) = owner {
                let reference = json!({ "apiVersion": "apps/v1", "kind": kind, "name": workload.name, "controller": true });
                set(metadata, "ownerReferences", json!([reference]));
            }
        }
        if let Some(spec) = pod.get_mut("spec") {
            // The identity is what the process is attested as, whatever a template says.
            set(spec, "serviceAccountName", json!(workload.service_account));
        }
        pod
    }

    fn application(&self, index: usize, workload: &Workload) -> ChildSpec {
        let mut command: Vec<OsString> = workload.command.iter().map(Into::into).collect();
        if let Some(first) = command.first_mut().filter(|first| *first == "mesh") {
            *first = self.program.clone().into();
        }
        let mut env: Vec<_> = workload
            .env
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        env.push(("MESH_NAMESPACE".to_owned(), workload.namespace.clone()));
        env.push(("MESH_WORKLOAD".to_owned(), workload.name.clone()));
        if let Some(first) = workload.ports.first() {
            env.push((
                "MESH_APP_ADDR".to_owned(),
                self.app_address(index, first.port).to_string(),
            ));
        }
        for port in &workload.ports {
            env.push((
                port.variable(),
                self.app_address(index, port.port).to_string(),
            ));
        }
        for (number, upstream) in workload.upstreams.iter().enumerate() {
            if workload.meshed {
                let address = SocketAddr::new(self.block.upstream(index, number), upstream.port);
                env.push((upstream.variable(), address.to_string()));
            } else if let Some(address) =
                self.plain_address(&upstream.namespace, &upstream.service, upstream.port)
            {
                env.push((upstream.plain_variable(), address.to_string()));
            }
        }
        for (number, outside) in workload.outside.iter().enumerate() {
            if workload.meshed {
                let address = self.outside(index, workload, number, outside);
                env.push((outside.variable(), address.to_string()));
            } else {
                env.push((outside.plain_variable(), outside.address.to_string()));
            }
        }
        if workload.meshed {
            let socket = format!("unix://{}", self.state.workload_api().display());
            env.push(("SPIFFE_ENDPOINT_SOCKET".to_owned(), socket));
        }
        let name = format!("app {}", key(workload));
        ChildSpec {
            log: self.state.log_file(&name),
            role: Role::Application,
            command,
            env,
            directory: self.directory.clone(),
            identity: workload.meshed.then(|| identity(workload, true)),
            name,
        }
    }

    /// Where a process outside the mesh finds the pod behind a Service of the same name.
    fn plain_address(&self, namespace: &str, service: &str, port: u16) -> Option<SocketAddr> {
        let found = self
            .mesh
            .workloads
            .iter()
            .position(|w| w.namespace == namespace && w.name == service)?;
        Some(SocketAddr::new(self.block.pod(found), port))
    }

    fn app_address(&self, index: usize, port: u16) -> SocketAddr {
        SocketAddr::new(self.block.application(index), port)
    }

    fn mesh_child(
        &self,
        name: &str,
        command: Vec<OsString>,
        identity: Option<ChildIdentity>,
    ) -> ChildSpec {
        ChildSpec {
            name: name.to_owned(),
            role: Role::Mesh,
            command,
            env: Vec::new(),
            directory: self.directory.clone(),
            log: self.state.log_file(name),
            identity,
        }
    }

    fn own(&self, words: &[&str]) -> Vec<OsString> {
        [self.program.clone().into()]
            .into_iter()
            .chain(words.iter().map(Into::into))
            .collect()
    }

    fn own_flag(&self, flag: &str, path: &Path) -> [OsString; 2] {
        [flag.into(), path.into()]
    }
}

/// `namespace/name` of a workload.
pub(crate) fn key(workload: &Workload) -> String {
    format!("{}/{}", workload.namespace, workload.name)
}

fn identity(workload: &Workload, descendants: bool) -> ChildIdentity {
    ChildIdentity {
        namespace: workload.namespace.clone(),
        service_account: workload.service_account.clone(),
        workload: workload.name.clone(),
        descendants,
    }
}

fn service(workload: &Workload) -> Value {
    let ports = workload
        .ports
        .iter()
        .map(|port| json!({ "name": port.name, "port": port.port, "targetPort": port.port }));
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": workload.name, "namespace": workload.namespace },
        "spec": { "selector": workload.labels, "ports": ports.collect::<Vec<_>>() },
    })
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(map) = object {
        map.insert(key.to_owned(), value);
    }
}
