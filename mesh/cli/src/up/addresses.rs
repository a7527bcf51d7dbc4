//! Loopback addresses for a mesh on one machine: a block of 127.0.0.0/8 for each mesh (docs/decisions/0001).

use super::UpError;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

/// Second bytes that blocks are taken from: clear of 127.0.x.x, where everything else on a machine listens.
const BLOCKS: std::ops::RangeInclusive<u8> = 16..=239;

/// Port at the block's first address that the supervisor holds, so that two meshes never share a block.
const CLAIM_PORT: u16 = 15_000;

/// Port of the proxies' mesh listener.
pub(crate) const MESH_PORT: u16 = 15_008;

/// Port of the proxies' admin listener.
pub(crate) const ADMIN_PORT: u16 = 15_020;

/// Port of the controller.
pub(crate) const CONTROLLER_PORT: u16 = 15_010;

/// Workloads one mesh may have: the third byte counts them, 0 is the control plane.
pub(crate) const WORKLOADS_MAX: usize = 254;

/// Upstreams one workload may have: the fourth byte counts them from 10.
pub(crate) const UPSTREAMS_MAX: usize = 240;

/// The block of one mesh; held until dropped.
#[derive(Debug)]
pub(crate) struct AddressBlock {
    second: u8,
    _claim: TcpListener,
}

impl AddressBlock {
    /// Claims a free block, beginning with the one that the state directory's name points to, so that a mesh gets the
    /// same addresses again.
    ///
    /// # Errors
    /// [`UpError::NoAddresses`] if every block is taken or loopback cannot be used.
    pub(crate) fn claim(state_dir: &Path) -> Result<Self, UpError> {
        let count = usize::from(BLOCKS.end() - BLOCKS.start()) + 1;
        let digest = ring::digest::digest(
            &ring::digest::SHA256,
            state_dir.as_os_str().as_encoded_bytes(),
        );
        let first = digest.as_ref().first().copied().map_or(0, usize::from);
        let mut last_error = String::new();
        for step in 0..count {
            let Some(second) = BLOCKS.clone().nth((first + step) % count) else {
                continue;
            };
            match TcpListener::bind((Ipv4Addr::new(127, second, 0, 1), CLAIM_PORT)) {
                Ok(claim) => {
                    return Ok(Self {
                        second,
                        _claim: claim,
                    });
                }
                Err(error) => last_error = error.to_string(),
            }
        }
        Err(UpError::NoAddresses { why: last_error })
    }

    /// Where the controller listens.
    pub(crate) fn controller(&self) -> SocketAddr {
        SocketAddr::new(self.address(0, 1), CONTROLLER_PORT)
    }

    /// The pod address of workload `index` (from 0).
    pub(crate) fn pod(&self, index: usize) -> IpAddr {
        self.address(third(index), 1)
    }

    /// Where the application of workload `index` listens.
    pub(crate) fn application(&self, index: usize) -> IpAddr {
        self.address(third(index), 2)
    }

    /// Where the proxy of workload `index` listens for its upstream `upstream` (from 0).
    pub(crate) fn upstream(&self, index: usize, upstream: usize) -> IpAddr {
        self.address(third(index), u8::try_from(upstream + 10).unwrap_or(u8::MAX))
    }

    fn address(&self, third: u8, fourth: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(127, self.second, third, fourth))
    }
}

/// The third byte of workload `index`; callers keep to [`WORKLOADS_MAX`].
fn third(index: usize) -> u8 {
    u8::try_from(index + 1).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_meshes_never_share_a_block() {
        let first = AddressBlock::claim(Path::new("/a/state")).unwrap();
        let second = AddressBlock::claim(Path::new("/a/state")).unwrap();
        assert_ne!(first.controller().ip(), second.controller().ip());
    }

    #[test]
    fn a_mesh_gets_its_block_again() {
        let before = AddressBlock::claim(Path::new("/another/state"))
            .unwrap()
            .controller();
        assert_eq!(
            AddressBlock::claim(Path::new("/another/state"))
                .unwrap()
                .controller(),
            before
        );
    }
}
