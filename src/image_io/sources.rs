//! How many pictures are being fetched at once, and how much of them lies in memory.
//!
//! A source that says nothing holds up whoever waits for it. Here it holds nothing else: of the
//! downloads at once one caller has only a share, and so has one source, be it a caller's own or one
//! that many callers name. A caller on the network is refused when there is no room; the program's
//! own work waits for its turn. Synchronous calls and jobs from the queue count together.
//!
//! Whoever waits does so in one order: memory, host, place. Nobody waits for one of them while holding
//! one that comes later.

use bytes::Bytes;
use url::Url;

use super::PictureError;
use crate::config::SourceSettings;
use crate::semaphore::{Caller, Exhausted, FairPermit, FairSemaphore};

/// Bytes for which one permit of the memory stands.
const PERMIT_BYTES: usize = 1024;

/// The downloads at once. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub(crate) struct SourceSlots {
    callers: FairSemaphore<Caller>,
    hosts: FairSemaphore<String>,
    memory: FairSemaphore<Caller>,
    /// Permits of the memory for a file of the largest size.
    one_file: usize,
}

/// One download. Its places are free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Download {
    slots: SourceSlots,
    caller: Caller,
    host: Option<FairPermit<String>>,
    memory: Option<FairPermit<Caller>>,
    place: Option<FairPermit<Caller>>,
}

impl SourceSlots {
    /// `max_file_bytes` is what one file may have, which fits into every share.
    pub(crate) fn new(settings: &SourceSettings, max_file_bytes: usize) -> Self {
        let SourceSettings {
            max_fetches,
            max_fetch_memory_bytes,
            max_share_percent: percent,
        } = *settings;
        let one_file = max_file_bytes.div_ceil(PERMIT_BYTES);
        let memory = max_fetch_memory_bytes.div_ceil(PERMIT_BYTES).max(one_file);
        Self {
            callers: FairSemaphore::with_percent(max_fetches, percent, 1),
            hosts: FairSemaphore::with_percent(max_fetches, percent, 1),
            memory: FairSemaphore::with_percent(memory, percent, one_file),
            one_file,
        }
    }

    /// Begins a download from this address.
    ///
    /// Cancel-safe: dropping the future leaves the line.
    ///
    /// # Errors
    /// [`PictureError::Busy`] when there is no room for a caller on the network.
    pub(crate) async fn begin(&self, caller: Caller, url: &Url) -> Result<Download, PictureError> {
        self.begin_holding(caller, url, None).await
    }

    /// Begins a download that has the memory for a file of the largest size from the beginning, and
    /// waits for that whoever the caller is.
    ///
    /// Cancel-safe: dropping the future leaves the line.
    ///
    /// # Errors
    /// As [`SourceSlots::begin`].
    pub(crate) async fn begin_with_memory(
        &self,
        caller: Caller,
        url: &Url,
    ) -> Result<Download, PictureError> {
        let memory = self.memory.acquire_many(&caller, self.one_file).await?;
        self.begin_holding(caller, url, Some(memory)).await
    }

    async fn begin_holding(
        &self,
        caller: Caller,
        url: &Url,
        memory: Option<FairPermit<Caller>>,
    ) -> Result<Download, PictureError> {
        let mut download = Download {
            slots: self.clone(),
            caller,
            host: None,
            memory,
            place: None,
        };
        download.take_places(url).await?;
        Ok(download)
    }

    /// A place at a URL's host. A URL without a host is refused elsewhere.
    async fn host(
        &self,
        caller: Caller,
        url: &Url,
    ) -> Result<Option<FairPermit<String>>, PictureError> {
        match url.host_str() {
            None => Ok(None),
            Some(host) => {
                let host = host.trim_end_matches('.').to_owned();
                take(&self.hosts, caller, &host).await.map(Some)
            }
        }
    }
}

impl Download {
    /// Goes on at another address, after a redirect.
    ///
    /// # Errors
    /// As [`SourceSlots::begin`].
    pub(crate) async fn redirected(&mut self, url: &Url) -> Result<(), PictureError> {
        // Given back before the next one is waited for: two downloads that cross must not wait for
        // each other, nor for one that has this host and waits for a place.
        self.host = None;
        if self.caller == Caller::Own {
            self.place = None;
        }
        self.take_places(url).await
    }

    /// Takes what is lacking of a place at this URL's host and one of the caller's.
    async fn take_places(&mut self, url: &Url) -> Result<(), PictureError> {
        // The host first: whoever waits for it holds none of the caller's places.
        self.host = self.slots.host(self.caller, url).await?;
        if self.place.is_none() {
            let place = take(&self.slots.callers, self.caller, &self.caller).await?;
            self.place = Some(place);
        }
        Ok(())
    }

    /// Takes memory for a file that has this many bytes by now. Waits for nobody, not even for a
    /// job: two files that wait half read would wait for each other. A job that is refused begins again
    /// by [`SourceSlots::begin_with_memory`].
    ///
    /// # Errors
    /// [`PictureError::Busy`] when there is no room.
    pub(crate) fn reserve(&mut self, bytes: usize) -> Result<(), PictureError> {
        let held = self.memory.as_ref().map_or(0, FairPermit::permits);
        let lacking = bytes.div_ceil(PERMIT_BYTES).saturating_sub(held);
        if lacking == 0 {
            return Ok(());
        }
        match &mut self.memory {
            Some(memory) => memory.try_grow(lacking)?,
            none => *none = Some(self.slots.memory.try_acquire(&self.caller, lacking)?),
        }
        Ok(())
    }

    /// The file that was downloaded, which holds its memory as long as anybody holds it.
    pub(crate) fn finish(mut self, file: Vec<u8>) -> Bytes {
        if let Some(memory) = &mut self.memory {
            memory.shrink_to(file.len().div_ceil(PERMIT_BYTES));
        }
        Bytes::from_owner(Held {
            file,
            _memory: self.memory,
        })
    }
}

async fn take<K: Clone + Eq + std::hash::Hash>(
    from: &FairSemaphore<K>,
    caller: Caller,
    party: &K,
) -> Result<FairPermit<K>, PictureError> {
    Ok(match caller {
        Caller::Own => from.acquire(party).await?,
        Caller::Peer { .. } => from.try_acquire(party, 1)?,
    })
}

impl From<Exhausted> for PictureError {
    fn from(error: Exhausted) -> Self {
        Self::Busy(error.to_string())
    }
}

/// A file and the memory that it was given.
struct Held {
    file: Vec<u8>,
    _memory: Option<FairPermit<Caller>>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.file
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::*;

    fn slots(max_fetches: usize) -> SourceSlots {
        let settings = SourceSettings {
            max_fetches,
            max_fetch_memory_bytes: 4 * PERMIT_BYTES,
            max_share_percent: 50,
        };
        SourceSlots::new(&settings, PERMIT_BYTES)
    }

    fn peer(last: u8) -> Caller {
        Caller::Peer {
            network: IpAddr::from([192, 0, 2, last]),
            key: None,
        }
    }

    fn url(host: &str) -> Url {
        Url::parse(&format!("http://{host}/x.png")).unwrap()
    }

    fn is_busy<T>(result: Result<T, PictureError>) -> bool {
        matches!(result, Err(PictureError::Busy(_)))
    }

    #[tokio::test]
    async fn one_caller_and_one_source_each_hold_a_share() {
        let slots = slots(8);
        let mut open = Vec::new();
        for n in 0..4 {
            let url = url(&format!("{n}.test"));
            open.push(slots.begin(peer(1), &url).await.unwrap());
        }
        assert!(is_busy(slots.begin(peer(1), &url("5.test")).await));
        drop(open);
        let mut open = Vec::new();
        for n in 0..4 {
            // However the name is spelt.
            let url = url(["slow.test", "SLOW.test", "slow.test.", "slow.test:81"][n]);
            open.push(slots.begin(peer(n as u8), &url).await.unwrap());
        }
        assert!(is_busy(slots.begin(peer(9), &url("slow.test")).await));
        slots.begin(peer(9), &url("other.test")).await.unwrap();
    }

    #[tokio::test]
    async fn own_work_waits_for_its_turn_and_a_redirect_moves_on() {
        let slots = slots(2);
        let mut first = slots.begin(peer(1), &url("a.test")).await.unwrap();
        let soon = Duration::from_millis(20);
        let early = tokio::time::timeout(soon, slots.begin(Caller::Own, &url("a.test"))).await;
        assert!(early.is_err(), "it did not wait");
        first.redirected(&url("b.test")).await.unwrap();
        let second = slots.begin(Caller::Own, &url("a.test")).await.unwrap();
        assert!(is_busy(slots.begin(peer(2), &url("c.test")).await));
        drop((first, second));
    }

    #[tokio::test]
    async fn a_redirect_to_a_host_whose_holder_waits_for_a_place_moves_on() {
        let slots = slots(2);
        let mut first = slots.begin(Caller::Own, &url("a.test")).await.unwrap();
        let second = tokio::spawn({
            let slots = slots.clone();
            async move { slots.begin(Caller::Own, &url("b.test")).await }
        });
        tokio::task::yield_now().await;
        let crossing = async {
            let target = url("b.test");
            let second = async { drop(second.await.unwrap().unwrap()) };
            tokio::join!(first.redirected(&target), second).0
        };
        let deadline = Duration::from_secs(5);
        let moved = tokio::time::timeout(deadline, crossing).await;
        moved.expect("they wait for each other").unwrap();
    }

    #[tokio::test]
    async fn own_work_waits_for_the_memory_of_a_whole_file_and_returns_the_rest() {
        let slots = slots(8);
        let url = url("a.test");
        let mut one = slots.begin(Caller::Own, &url).await.unwrap();
        one.reserve(2 * PERMIT_BYTES).unwrap();
        let waiting = slots.begin_with_memory(Caller::Own, &url);
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, waiting).await.is_err());
        let file = one.finish(vec![7; 1]);
        let mut two = slots.begin_with_memory(Caller::Own, &url).await.unwrap();
        two.reserve(PERMIT_BYTES).unwrap();
        assert!(is_busy(two.reserve(PERMIT_BYTES + 1)), "{file:?} is held");
    }

    #[tokio::test]
    async fn a_file_holds_its_memory_until_it_is_dropped() {
        let slots = slots(8);
        let url = url("a.test");
        let mut one = slots.begin(peer(1), &url).await.unwrap();
        one.reserve(1).unwrap();
        one.reserve(2 * PERMIT_BYTES).unwrap();
        assert!(is_busy(one.reserve(2 * PERMIT_BYTES + 1)), "the share");
        let file = one.finish(vec![7; 2 * PERMIT_BYTES]);
        let part = file.slice(1..2);
        drop(file);
        let mut two = slots.begin(peer(1), &url).await.unwrap();
        assert!(is_busy(two.reserve(1)), "{part:?} is held");
        let mut three = slots.begin(peer(2), &url).await.unwrap();
        three.reserve(2 * PERMIT_BYTES).unwrap();
        drop(part);
        two.reserve(1).unwrap();
    }
}
