//! Root and issuer in objects of a cluster: cert-manager's Secret, and the bundle that trust-manager or a person keeps.

use crate::adoption::{Keeper, KeeperError};
use crate::signer::Signing;
use mesh_issuance::adoption::source::{self, Data};
use mesh_issuance::adoption::staging::Offer;
use mesh_kubernetes::Client;
use mesh_kubernetes::named::Named;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Objects that hold root and issuer.
pub struct KeptObjects {
    client: Client,
    issuer: Named,
    roots: Option<(Named, Option<String>)>,
    changed: Arc<Notify>,
    /// The watches; they end with this.
    _watches: JoinSet<()>,
}

impl KeptObjects {
    /// The issuer in `issuer`, the roots in the object and under the key of `roots`; without them, `ca.crt` of the
    /// issuer's Secret is the root. Needs a tokio runtime.
    pub fn new(client: Client, issuer: Named, roots: Option<(Named, Option<String>)>) -> Self {
        let changed = Arc::new(Notify::new());
        let mut watches = JoinSet::new();
        for object in [Some(&issuer), roots.as_ref().map(|(object, _)| object)] {
            let Some(object) = object.cloned() else {
                continue;
            };
            let (client, changed) = (client.clone(), Arc::clone(&changed));
            watches.spawn(async move {
                object.watch(&client, || changed.notify_one()).await;
            });
        }
        Self {
            client,
            issuer,
            roots,
            changed,
            _watches: watches,
        }
    }

    async fn data(&self, object: &Named) -> Result<Data, KeeperError> {
        let unreadable = |why: String| KeeperError::Unreadable {
            what: object.to_string(),
            why,
        };
        let found = object.data(&self.client).await;
        let found = found.map_err(|error| unreadable(error.to_string()))?;
        found.ok_or_else(|| unreadable("there is no such object".to_owned()))
    }
}

#[tonic::async_trait]
impl Keeper for KeptObjects {
    fn place(&self) -> String {
        self.issuer.to_string()
    }

    fn may_come(&self) -> bool {
        true
    }

    async fn read(&self, _: &Signing) -> Result<Offer, KeeperError> {
        let issuer = self.data(&self.issuer).await?;
        let roots = match &self.roots {
            Some((object, key)) => source::roots_from(&self.data(object).await?, key.as_deref())?,
            None => source::roots_beside(&issuer)?,
        };
        Ok(Offer {
            roots,
            issuer: source::issuer_from(&issuer)?,
        })
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }
}
