//! Discovery in slices, of which those travel that changed.
//!
//! Every Service and every address of a pod has its place in one of [`SLICES`] slices, by its name or address. A controller
//! sends a proxy the slices that are other than what it has, and after them one digest over all. Only then the proxy puts
//! them into force ([`Receiver`]), all at once. So what is in force is always one whole discovery that a controller had:
//! what is not in it is not there, rather than not known yet, and nothing is taken to be outside the mesh because news of it
//! are still on their way. What does not come out as the digest says is refused.
//!
//! A slice that nothing is in counts as absent: a removed Service needs no word of its own.

use crate::discovery::{Discovery, PodAddress, ServicePort};
use crate::proto::{DiscoverySlice, DiscoveryUpdate};
use bytes::Bytes;
use mesh_trust::SpiffeId;
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN, digest};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Slices of a discovery. With ten thousand pods a slice has about ten of them, 2 KiB; a table of slices is 8 KiB. A part of
/// the protocol: both sides must mean the same slices.
pub const SLICES: u16 = 1_024;

/// SHA-256.
pub type Digest = [u8; SHA256_OUTPUT_LEN];

/// What stands for a slice that nothing is in.
const ABSENT: Digest = [0; SHA256_OUTPUT_LEN];

/// Some services and pods: all whose place is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slice {
    /// All ports of the Services that belong here, by namespace, name, port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServicePort>,
    /// Addresses of pods that belong here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodAddress>,
}

/// Why news of discovery cannot be used. What is in force stays.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum SliceError {
    /// There is no slice of this number.
    #[error("there is no slice {0}")]
    #[diagnostic(
        code("MESH-0716"),
        help("give the workload a proxy of the controller's version: restart its pod")
    )]
    Number(u32),
    /// Not the JSON of a slice.
    #[error("slice {number} cannot be read: {why}")]
    #[diagnostic(
        code("MESH-0716"),
        help("give the workload a proxy of the controller's version: restart its pod")
    )]
    Unreadable {
        /// Its number.
        number: u16,
        /// What the reader said.
        why: String,
    },
    /// Something in it belongs elsewhere: nobody would find it here.
    #[error("`{what}` is in slice {number}, where it does not belong")]
    #[diagnostic(
        code("MESH-0716"),
        help("give the workload a proxy of the controller's version: restart its pod")
    )]
    Misplaced {
        /// Number of the slice.
        number: u16,
        /// A Service or an address.
        what: String,
    },
    /// Slices were lost, or came for another state than the one they were put on.
    #[error("discovery is not what its digest says")]
    #[diagnostic(
        code("MESH-0716"),
        help("give the workload a proxy of the controller's version: restart its pod")
    )]
    Digest,
}

/// Where a Service belongs, whatever its ports.
pub fn slice_of_service(namespace: &str, name: &str) -> u16 {
    place(&[namespace.as_bytes(), name.as_bytes()])
}

/// Where the address of a pod belongs, whichever form it is written in.
pub fn slice_of_address(ip: IpAddr) -> u16 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => place(&[&ip.octets()]),
        IpAddr::V6(ip) => place(&[&ip.octets()]),
    }
}

/// FNV-1a. Who chooses names so that they fall together only makes a slice larger.
fn place(words: &[&[u8]]) -> u16 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for word in words {
        // No name has this octet: words do not run into each other.
        for octet in word.iter().chain([&0xff]) {
            hash = (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    let folded = hash ^ (hash >> 32);
    u16::try_from(folded % u64::from(SLICES)).unwrap_or_default()
}

/// SHA-256 over the digests of all slices, in order.
pub fn digest_over<'d>(digests: impl Iterator<Item = Option<&'d Digest>>) -> Digest {
    let mut context = Context::new(&SHA256);
    digests.for_each(|digest| context.update(digest.unwrap_or(&ABSENT)));
    sized(&context.finish())
}

fn sized(digest: &ring::digest::Digest) -> Digest {
    digest.as_ref().try_into().unwrap_or(ABSENT)
}

/// The digests in a request's `has`: one for each slice, `None` where nothing is. `None` if there are not as many as slices.
pub fn read_digests(has: &[u8]) -> Option<Vec<Option<Digest>>> {
    if has.is_empty() {
        return Some(vec![None; usize::from(SLICES)]);
    }
    let (digests, rest) = has.as_chunks::<SHA256_OUTPUT_LEN>();
    let one = |digest: &Digest| Some(*digest).filter(|digest| *digest != ABSENT);
    (digests.len() == usize::from(SLICES) && rest.is_empty())
        .then(|| digests.iter().map(one).collect())
}

impl Slice {
    /// Reads one as it came.
    ///
    /// # Errors
    /// [`SliceError`]: not such JSON, a field of a later kind, or something that belongs elsewhere.
    pub fn read(number: u16, json: &[u8]) -> Result<Self, SliceError> {
        let slice: Self = serde_json::from_slice(json).map_err(|error| SliceError::Unreadable {
            number,
            why: error.to_string(),
        })?;
        let misplaced = |what| SliceError::Misplaced { number, what };
        for service in &slice.services {
            if slice_of_service(&service.namespace, &service.name) != number {
                let name = format!("{}/{}", service.namespace, service.name);
                return Err(misplaced(name));
            }
        }
        match slice
            .pods
            .iter()
            .find(|pod| slice_of_address(pod.ip) != number)
        {
            Some(pod) => Err(misplaced(pod.ip.to_string())),
            None => Ok(slice),
        }
    }

    /// All of a discovery, each in its slice, by number.
    pub fn all_of(discovery: Discovery) -> Vec<Self> {
        let mut all = vec![Self::default(); usize::from(SLICES)];
        for service in discovery.services {
            let place = slice_of_service(&service.namespace, &service.name);
            if let Some(slice) = all.get_mut(usize::from(place)) {
                slice.services.push(service);
            }
        }
        for pod in discovery.pods {
            if let Some(slice) = all.get_mut(usize::from(slice_of_address(pod.ip))) {
                slice.pods.push(pod);
            }
        }
        all
    }

    fn is_empty(&self) -> bool {
        self.services.is_empty() && self.pods.is_empty()
    }
}

/// A slice as it travels.
#[derive(Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Its JSON.
    pub json: Bytes,
    /// SHA-256 of that.
    pub digest: Digest,
}

impl Encoded {
    /// `None` if nothing is in it.
    pub fn of(slice: &Slice) -> Option<Self> {
        if slice.is_empty() {
            return None;
        }
        // Our own data always has a JSON form: no keys but text, no failing `Serialize`.
        let json = serde_json::to_vec(slice).unwrap_or_default();
        Some(Self {
            digest: sized(&digest(&SHA256, &json)),
            json: json.into(),
        })
    }
}

/// A slice that is kept, sorted for who looks things up in it: however large somebody made it, that takes few steps.
#[derive(Debug)]
struct Kept {
    /// Services by [`key_of`], pods by canonical address; who has the same stands as it came.
    slice: Slice,
    /// Of the JSON that it came as.
    digest: Digest,
}

impl Kept {
    fn new(mut slice: Slice, digest: Digest, names: &mut HashSet<SpiffeId>) -> Arc<Self> {
        share_names(&mut slice, names);
        slice.services.sort_by(|a, b| key_of(a).cmp(&key_of(b)));
        slice.pods.sort_by_key(|pod| pod.ip.to_canonical());
        Arc::new(Self { slice, digest })
    }
}

/// What tells one port of a Service from all others.
fn key_of(service: &ServicePort) -> (&str, &str, u16) {
    (&service.namespace, &service.name, service.port)
}

/// A whole discovery, kept in slices and looked up in them. Clones share them.
#[derive(Clone, Debug)]
pub struct Slices {
    all: Box<[Option<Arc<Kept>>]>,
    digest: Digest,
}

impl Default for Slices {
    fn default() -> Self {
        Self::put_together(vec![None; usize::from(SLICES)].into())
    }
}

impl From<Discovery> for Slices {
    fn from(discovery: Discovery) -> Self {
        let mut names = HashSet::new();
        let keep = |slice: Slice| {
            let digest = Encoded::of(&slice)?.digest;
            Some(Kept::new(slice, digest, &mut names))
        };
        let all = Slice::all_of(discovery).into_iter().map(keep);
        Self::put_together(all.collect())
    }
}

impl Slices {
    fn put_together(all: Box<[Option<Arc<Kept>>]>) -> Self {
        let digests = all
            .iter()
            .map(|kept| kept.as_ref().map(|kept| &kept.digest));
        Self {
            digest: digest_over(digests),
            all,
        }
    }

    /// SHA-256 over those of all slices: equal for equal discovery.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The digest of each slice, as a request says it; empty if there is none.
    pub fn has(&self) -> Vec<u8> {
        if self.all.iter().all(Option::is_none) {
            return Vec::new();
        }
        let digests = self.all.iter();
        let digests = digests.flat_map(|kept| kept.as_ref().map_or(ABSENT, |kept| kept.digest));
        digests.collect()
    }

    fn slice(&self, number: u16) -> Option<&Slice> {
        let kept = self.all.get(usize::from(number))?.as_ref()?;
        Some(&kept.slice)
    }

    fn slices(&self) -> impl Iterator<Item = &Slice> {
        self.all.iter().flatten().map(|kept| &kept.slice)
    }

    /// All ports of all Services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &ServicePort> {
        self.slices().flat_map(|slice| &slice.services)
    }

    /// One port of one Service.
    pub fn service(&self, namespace: &str, name: &str, port: u16) -> Option<&ServicePort> {
        let here = self.slice(slice_of_service(namespace, name))?;
        let key = (namespace, name, port);
        let end = here
            .services
            .partition_point(|service| key_of(service) <= key);
        // Ports are distinct; of two that claim to be one, the last as they came has it.
        let last = here.services.get(..end)?.last()?;
        (key_of(last) == key).then_some(last)
    }

    /// The pod at an address. Of two that claim it, the one in the mesh has it: then nothing goes there in plaintext.
    pub fn pod(&self, ip: IpAddr) -> Option<&PodAddress> {
        let ip = ip.to_canonical();
        let here = self.slice(slice_of_address(ip))?;
        let start = here.pods.partition_point(|pod| pod.ip.to_canonical() < ip);
        let from_there = here.pods.get(start..)?.iter();
        let mut claims = from_there.take_while(|pod| pod.ip.to_canonical() == ip);
        let first = claims.next()?;
        match &first.identity {
            Some(_) => Some(first),
            None => claims.find(|pod| pod.identity.is_some()).or(Some(first)),
        }
    }

    /// All of it, sorted.
    pub fn discovery(&self) -> Discovery {
        joined(self.slices().cloned())
    }
}

/// Slices as one discovery: services by namespace, name, port; pods by address, then name.
pub fn joined(slices: impl Iterator<Item = Slice>) -> Discovery {
    let mut all = Discovery::default();
    for slice in slices {
        all.services.extend(slice.services);
        all.pods.extend(slice.pods);
    }
    all.services.sort_by(|a, b| key_of(a).cmp(&key_of(b)));
    all.pods
        .sort_by(|a, b| (a.ip, &a.workload).cmp(&(b.ip, &b.workload)));
    all
}

/// Lets equal identities be one in memory, and gives back room that reading took in advance: of ten thousand pods many have
/// the same identity.
fn share_names(slice: &mut Slice, names: &mut HashSet<SpiffeId>) {
    let mut share = |id: &mut SpiffeId| match names.get(id) {
        Some(known) => *id = known.clone(),
        None => drop(names.insert(id.clone())),
    };
    for service in &mut slice.services {
        service.endpoints.shrink_to_fit();
        let endpoints = service.endpoints.iter_mut();
        endpoints.for_each(|endpoint| share(&mut endpoint.identity));
    }
    let pods = slice.pods.iter_mut();
    pods.filter_map(|pod| pod.identity.as_mut()).for_each(share);
    slice.services.shrink_to_fit();
    slice.pods.shrink_to_fit();
}

/// Puts together what comes on one stream. After an error it is of no use any more: what it has is not what the controller
/// takes it to have.
#[derive(Debug)]
pub struct Receiver {
    /// The last whole state.
    whole: Slices,
    /// What came since.
    news: BTreeMap<u16, Option<Arc<Kept>>>,
    names: HashSet<SpiffeId>,
    /// What comes as it is in here is taken from here.
    pool: Option<Slices>,
}

impl Receiver {
    /// For a stream whose request said what `whole` has.
    pub fn new(whole: Slices) -> Self {
        Self {
            whole,
            news: BTreeMap::new(),
            names: HashSet::new(),
            pool: None,
        }
    }

    /// For a stream whose request said that there is nothing, though `in_force` is. What comes as it is there is not kept
    /// twice.
    pub fn anew(in_force: Slices) -> Self {
        Self {
            pool: Some(in_force),
            ..Self::new(Slices::default())
        }
    }

    /// Takes a message; the discovery that is whole with it, if it is.
    ///
    /// # Errors
    /// [`SliceError`].
    pub fn take(&mut self, message: &DiscoveryUpdate) -> Result<Option<Slices>, SliceError> {
        for slice in &message.slices {
            let (number, kept) = self.read(slice)?;
            self.news.insert(number, kept);
        }
        if message.digest.is_empty() {
            return Ok(None);
        }
        let mut all = self.whole.all.clone();
        for (number, kept) in std::mem::take(&mut self.news) {
            if let Some(place) = all.get_mut(usize::from(number)) {
                *place = kept;
            }
        }
        let whole = Slices::put_together(all);
        if whole.digest.as_slice() != message.digest {
            return Err(SliceError::Digest);
        }
        self.names = HashSet::new();
        self.pool = None;
        self.whole = whole.clone();
        Ok(Some(whole))
    }

    fn read(&mut self, slice: &DiscoverySlice) -> Result<(u16, Option<Arc<Kept>>), SliceError> {
        let number = u16::try_from(slice.number)
            .ok()
            .filter(|number| *number < SLICES)
            .ok_or(SliceError::Number(slice.number))?;
        if slice.json.is_empty() {
            return Ok((number, None));
        }
        let digest = sized(&digest(&SHA256, &slice.json));
        let had = self.pool.as_ref();
        let had = had.and_then(|pool| pool.all.get(usize::from(number))?.as_ref());
        if let Some(had) = had.filter(|had| had.digest == digest) {
            return Ok((number, Some(Arc::clone(had))));
        }
        let read = Slice::read(number, &slice.json)?;
        Ok((number, Some(Kept::new(read, digest, &mut self.names))))
    }
}

#[cfg(test)]
mod tests;
