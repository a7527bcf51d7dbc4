//! Why a broker gets nothing: a code of ours in the message, and, where the standard names a reason, that as the error's
//! details (`google.rpc.ErrorInfo` of the domain `spiffe.io`).

use crate::error::coded;
use crate::proto::rpc;
use mesh_trust::SpiffeId;
use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};

/// Whose the reasons are.
const DOMAIN: &str = "spiffe.io";
const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";

/// Why a broker gets nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub(crate) enum Refusal {
    /// Not on the list.
    #[error("`{id}` is no broker here")]
    #[diagnostic(
        code("MESH-0878"),
        help("`--broker ID` names those who may ask on behalf of others")
    )]
    NoBroker {
        /// Who asks.
        id: SpiffeId,
    },
    /// The SVID of one, shown by another.
    #[error(
        "process {pid} shows the SVID of `{id}` and is not found to be that, or is denied, or the SVID has ended"
    )]
    #[diagnostic(
        code("MESH-0879"),
        help(
            "a broker runs on this machine, and has its SVID from the Workload API here: is it registered, and is neither it nor its SVID denied?"
        )
    )]
    OtherProcess {
        /// Who it says it is.
        id: SpiffeId,
        /// The process.
        pid: u32,
    },
    /// No reference, or one of no use here.
    #[error("the reference to a workload cannot be used: {why}")]
    #[diagnostic(
        code("MESH-0880"),
        help("refer to a process of this machine, by a WorkloadPIDReference")
    )]
    Reference {
        /// What is wrong with it.
        why: &'static str,
    },
    /// No such process.
    #[error("there is no process {pid}")]
    #[diagnostic(
        code("MESH-0881"),
        help(
            "it has ended, or is numbered otherwise here: name it as this machine does, outside of its container"
        )
    )]
    NotFound {
        /// Its id.
        pid: u32,
    },
    /// A process that is nobody.
    #[error("process {pid} has no identity")]
    #[diagnostic(
        code("MESH-0882"),
        help("register it, as if it were to ask for its SVID itself")
    )]
    NotEntitled {
        /// Its id.
        pid: u32,
    },
    /// The log takes nothing.
    #[error("it cannot be recorded what brokers ask, so nothing is given")]
    #[diagnostic(
        code("MESH-0883"),
        help(
            "look at the disk of the directory in which `broker.jsonl` lies, and at the log of this program"
        )
    )]
    NotRecorded,
    /// Too much at once.
    #[error("a broker asks too much: {what}")]
    #[diagnostic(
        code("MESH-0884"),
        help(
            "it needs a few streams for each workload: does it end those of workloads that are gone, and pause after a refusal?"
        )
    )]
    TooMuch {
        /// What it has had.
        what: String,
    },
}

impl Refusal {
    /// Code and text, for logs and messages.
    pub(crate) fn coded(&self) -> String {
        coded(self)
    }

    /// As gRPC says it.
    pub(crate) fn to_status(&self) -> Status {
        let (code, reason) = match self {
            Self::NoBroker { .. } | Self::OtherProcess { .. } => (Code::PermissionDenied, None),
            Self::Reference { .. } => (Code::InvalidArgument, Some("WORKLOAD_REFERENCE_INVALID")),
            Self::NotFound { .. } => (Code::NotFound, Some("WORKLOAD_NOT_FOUND")),
            Self::NotEntitled { .. } => (Code::PermissionDenied, Some("WORKLOAD_NOT_ENTITLED")),
            Self::NotRecorded => (Code::Unavailable, None),
            Self::TooMuch { .. } => (Code::ResourceExhausted, None),
        };
        let message = self.coded();
        let Some(reason) = reason else {
            return Status::new(code, message);
        };
        let info = rpc::ErrorInfo {
            reason: reason.to_owned(),
            domain: DOMAIN.to_owned(),
            metadata: Default::default(),
        };
        let details = rpc::Status {
            code: code.into(),
            message: message.clone(),
            details: vec![Any {
                type_url: ERROR_INFO.to_owned(),
                value: info.encode_to_vec(),
            }],
        };
        Status::with_details(code, message, details.encode_to_vec().into())
    }
}
