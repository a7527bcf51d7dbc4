//! Arguments of the SPIFFE Broker API, which the CA and the agent of a machine serve alike.

use clap::Args;
use mesh_ca::BrokerConfig;
use mesh_trust::SpiffeId;
use std::path::PathBuf;

/// Who may ask on behalf of other processes of the machine, and where. Off by default.
#[derive(Args, Clone, Debug)]
pub(crate) struct BrokerArgs {
    /// Serves the SPIFFE Broker API on this socket: processes that are named with `--broker` get SVIDs of other processes of
    /// this machine (docs/guides/broker.md).
    #[arg(long, value_name = "SOCKET", requires = "brokers")]
    broker_api: Option<PathBuf>,
    /// Permission bits of that socket, octal; 0666 lets in processes of other users.
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = crate::arguments::mode)]
    broker_api_mode: u32,
    /// SPIFFE ID of a process of this machine that may ask on behalf of others. May be given several times.
    #[arg(id = "brokers", long = "broker", value_name = "ID", requires = "broker_api", value_parser = crate::parts::spiffe_id)]
    brokers: Vec<SpiffeId>,
}

impl BrokerArgs {
    /// What is to be served, if anything.
    pub(crate) fn config(self) -> Option<BrokerConfig> {
        Some(BrokerConfig {
            socket: self.broker_api?,
            mode: self.broker_api_mode,
            brokers: self.brokers,
        })
    }
}
