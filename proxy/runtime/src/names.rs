//! Addresses of names outside of the mesh, as the resolvers of the proxy's system say, for a while.
//!
//! The C library tells no times to live. So an answer counts for [`NAME_FRESH`], that there is none for
//! [`NAME_ABSENT`], and while no resolver answers the last answer for [`NAME_KEPT`]. Names are looked up as they are: no
//! domain is ever put behind them, or whoever names a service in a cluster could answer for a name of the world.
//!
//! A name is looked up once for all who ask, by a task of its own, and what comes of it is kept even if it comes after
//! everybody has given up: a resolver that is slow, because the first of two is silent, would otherwise never be heard.

use crate::limits::{
    LOOKUP_WITHIN, LOOKUPS_AT_ONCE, NAME_ABSENT, NAME_ADDRESSES_MAX, NAME_FRESH, NAME_KEPT,
    NAME_SOON, NAMES_MAX,
};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::{Instant, timeout_at};

/// Why a name has no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoAddress {
    /// There is no such name, or it has no address.
    Absent,
    /// No resolver said anything.
    Unknown(String),
    /// Too many names are looked up at once.
    Busy,
}

/// What is known of the names that one core has looked up.
#[derive(Clone)]
pub(crate) struct Names(Rc<All>);

struct All {
    known: RefCell<HashMap<Box<str>, Known>>,
    /// Names that are being looked up.
    asked: RefCell<HashMap<Box<str>, Asked>>,
    places: Arc<Semaphore>,
}

/// Addresses, not none.
type Answer = Result<Rc<[IpAddr]>, NoAddress>;

/// One name that is being looked up.
#[derive(Clone)]
struct Asked {
    since: Instant,
    /// What has come of it, once something has.
    answer: watch::Receiver<Option<Answer>>,
}

/// What is known of one name.
struct Known {
    /// The last answer; empty: there is none.
    addresses: Rc<[IpAddr]>,
    /// When it came.
    answered: Instant,
    /// When it was last tried in vain.
    failed: Option<Instant>,
}

impl Default for Names {
    fn default() -> Self {
        Self(Rc::new(All {
            known: RefCell::default(),
            asked: RefCell::default(),
            places: Arc::new(Semaphore::new(LOOKUPS_AT_ONCE)),
        }))
    }
}

impl Names {
    /// The addresses of a name, not none.
    ///
    /// # Errors
    /// [`NoAddress`].
    pub(crate) async fn addresses(&self, name: &str) -> Result<Rc<[IpAddr]>, NoAddress> {
        self.addresses_by(name, system).await
    }

    /// The same by a resolver, which holds its place for as long as it is at work.
    async fn addresses_by<F>(
        &self,
        name: &str,
        resolver: impl FnOnce(String, OwnedSemaphorePermit) -> F,
    ) -> Answer
    where
        F: Future<Output = io::Result<Vec<IpAddr>>> + 'static,
    {
        if let Some(known) = self.0.fresh(name) {
            return known;
        }
        let old = self.0.last(name);
        let now = Instant::now();
        let asked = match self.0.asked(name) {
            Some(asked) => asked,
            None => {
                let until = now + patience(&old);
                let place = timeout_at(until, self.0.places.clone().acquire_owned());
                let Ok(Ok(place)) = place.await else {
                    return old.ok_or(NoAddress::Busy);
                };
                // Whoever waited for a place may find the answer there, or somebody who has asked.
                if let Some(known) = self.0.fresh(name) {
                    return known;
                }
                match self.0.asked(name) {
                    Some(asked) => asked,
                    None => self.ask(name, resolver(name.to_owned(), place)),
                }
            }
        };
        // An old answer is not waited past more than once for each question.
        let since = if old.is_some() { asked.since } else { now };
        let mut answer = asked.answer;
        let came = timeout_at(
            since + patience(&old),
            answer.wait_for(|answer| answer.is_some()),
        );
        let why = match came.await {
            Ok(Ok(answer)) => match answer.as_ref() {
                Some(Err(why @ (NoAddress::Unknown(_) | NoAddress::Busy))) => why.clone(),
                Some(answer) => return answer.clone(),
                None => NoAddress::Unknown("nothing came".to_owned()),
            },
            Ok(Err(_)) => NoAddress::Unknown("the question was dropped".to_owned()),
            Err(_) => {
                let within = LOOKUP_WITHIN.as_secs();
                NoAddress::Unknown(format!("no answer within {within} s"))
            }
        };
        old.ok_or(why)
    }

    /// Has a resolver answer, for whoever asks meanwhile. There are no more of these tasks than places.
    fn ask(
        &self,
        name: &str,
        resolver: impl Future<Output = io::Result<Vec<IpAddr>>> + 'static,
    ) -> Asked {
        let (tell, answer) = watch::channel(None);
        let asked = Asked {
            since: Instant::now(),
            answer,
        };
        let all = self.0.clone();
        all.asked.borrow_mut().insert(name.into(), asked.clone());
        let name: Box<str> = name.into();
        tokio::task::spawn_local(async move {
            let answer = match resolver.await {
                Ok(mut found) => {
                    found.truncate(NAME_ADDRESSES_MAX);
                    all.answered(&name, &found)
                }
                Err(error) if is_absent(&error) => all.answered(&name, &[]),
                Err(error) => {
                    if let Some(known) = all.known.borrow_mut().get_mut(&name) {
                        known.failed = Some(Instant::now());
                    }
                    Err(NoAddress::Unknown(error.to_string()))
                }
            };
            all.asked.borrow_mut().remove(&name);
            // Whoever asked may have given up.
            let _ = tell.send(Some(answer));
        });
        asked
    }

    /// Forgets what counts no longer. Called now and then.
    pub(crate) fn sweep(&self) {
        let mut known = self.0.known.borrow_mut();
        known.retain(|_, known| known.counts_for() > known.answered.elapsed());
    }
}

/// How long somebody waits who has this answer already.
fn patience(old: &Option<Rc<[IpAddr]>>) -> Duration {
    match old {
        Some(_) => NAME_SOON,
        None => LOOKUP_WITHIN,
    }
}

impl All {
    fn asked(&self, name: &str) -> Option<Asked> {
        self.asked.borrow().get(name).cloned()
    }

    /// What counts without asking anybody.
    fn fresh(&self, name: &str) -> Option<Answer> {
        let known = self.known.borrow();
        let known = known.get(name)?;
        let age = known.answered.elapsed();
        let tried = known.failed.is_some_and(|at| at.elapsed() < NAME_ABSENT);
        if known.addresses.is_empty() {
            return (age < NAME_ABSENT).then_some(Err(NoAddress::Absent));
        }
        let counts = age < NAME_FRESH || (tried && age < NAME_KEPT);
        counts.then(|| Ok(known.addresses.clone()))
    }

    /// The last answer, where nobody gives another.
    fn last(&self, name: &str) -> Option<Rc<[IpAddr]>> {
        let known = self.known.borrow();
        let known = known.get(name)?;
        let counts = !known.addresses.is_empty() && known.answered.elapsed() < NAME_KEPT;
        counts.then(|| known.addresses.clone())
    }

    fn answered(&self, name: &str, found: &[IpAddr]) -> Answer {
        let addresses: Rc<[IpAddr]> = found.iter().map(IpAddr::to_canonical).collect();
        let mut known = self.known.borrow_mut();
        if known.len() >= NAMES_MAX && !known.contains_key(name) {
            make_room(&mut known);
        }
        let now = Instant::now();
        let fact = Known {
            addresses: addresses.clone(),
            answered: now,
            failed: None,
        };
        known.insert(name.into(), fact);
        match addresses.is_empty() {
            true => Err(NoAddress::Absent),
            false => Ok(addresses),
        }
    }
}

impl Known {
    fn counts_for(&self) -> Duration {
        match self.addresses.is_empty() {
            true => NAME_ABSENT,
            false => NAME_KEPT,
        }
    }
}

/// Forgets half of the names: those whose answers are oldest, and those without an answer first.
fn make_room(known: &mut HashMap<Box<str>, Known>) {
    let age = |known: &Known| (known.addresses.is_empty(), known.answered.elapsed());
    let mut ages: Vec<_> = known.values().map(age).collect();
    ages.sort_unstable();
    let Some(middle) = ages.get(ages.len() / 2).copied() else {
        return;
    };
    known.retain(|_, one| age(one) < middle);
}

/// The C library tells what is missing by its text alone.
fn is_absent(error: &io::Error) -> bool {
    let text = error.to_string();
    let said = |what: &str| text.contains(what);
    said("Name or service not known")
        || said("No address associated")
        || said("Name does not resolve")
        || said("Name has no usable address")
}

/// The resolvers of the system. The place is held until the C library is done, however long that takes: it has a thread,
/// for which nobody waits at the end of the proxy.
async fn system(name: String, place: OwnedSemaphorePermit) -> io::Result<Vec<IpAddr>> {
    let (tell, told) = oneshot::channel();
    let look_up = move || {
        // The dot at its end makes it whole.
        let found = std::net::ToSocketAddrs::to_socket_addrs(&(format!("{name}."), 0));
        let found = found.map(|found| found.map(|address| address.ip()).collect());
        drop(place);
        // Whoever asked may have given up.
        let _ = tell.send(found);
    };
    std::thread::Builder::new()
        .name("names".to_owned())
        .spawn(look_up)?;
    told.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tokio::task::LocalSet;
    use tokio::time::{sleep, timeout};

    const NAME: &str = "api.example";

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([203, 0, 113, last])
    }

    fn absent() -> io::Error {
        io::Error::other("failed to lookup address information: Name or service not known")
    }

    fn silent() -> io::Error {
        io::Error::other(
            "failed to lookup address information: Temporary failure in name resolution",
        )
    }

    /// Asks with a resolver that says this; and whether it was asked.
    async fn ask(
        names: &Names,
        name: &str,
        says: io::Result<Vec<IpAddr>>,
    ) -> (Result<Vec<IpAddr>, NoAddress>, bool) {
        let asked = Cell::new(false);
        let resolver = |_, place| {
            asked.set(true);
            async move {
                drop(place);
                says
            }
        };
        let answer = names.addresses_by(name, resolver).await;
        (answer.map(|found| found.to_vec()), asked.get())
    }

    async fn pass(time: Duration) {
        tokio::time::advance(time).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_counts_for_a_while_and_is_then_asked_for_again() {
        LocalSet::new()
            .run_until(async {
                let names = Names::default();
                assert_eq!(
                    ask(&names, NAME, Ok(vec![ip(1)])).await,
                    (Ok(vec![ip(1)]), true)
                );
                pass(NAME_FRESH / 2).await;
                assert_eq!(
                    ask(&names, NAME, Ok(vec![ip(2)])).await,
                    (Ok(vec![ip(1)]), false)
                );
                pass(NAME_FRESH / 2).await;
                assert_eq!(
                    ask(&names, NAME, Ok(vec![ip(2)])).await,
                    (Ok(vec![ip(2)]), true)
                );
                let mapped = "::ffff:203.0.113.3".parse().unwrap();
                pass(NAME_FRESH).await;
                assert_eq!(
                    ask(&names, NAME, Ok(vec![mapped])).await,
                    (Ok(vec![ip(3)]), true)
                );
            })
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn that_there_is_no_such_name_counts_for_a_moment() {
        LocalSet::new()
            .run_until(async {
                let names = Names::default();
                let no = Err(NoAddress::Absent);
                assert_eq!(ask(&names, NAME, Err(absent())).await, (no.clone(), true));
                assert_eq!(
                    ask(&names, NAME, Ok(vec![ip(1)])).await,
                    (no.clone(), false)
                );
                pass(NAME_ABSENT).await;
                assert_eq!(
                    ask(&names, NAME, Ok(Vec::new())).await,
                    (no, true),
                    "an answer without addresses"
                );
                pass(NAME_ABSENT).await;
                assert_eq!(
                    ask(&names, NAME, Ok(vec![ip(1)])).await,
                    (Ok(vec![ip(1)]), true)
                );
                // A name that has gone is gone: its old addresses are somebody else's.
                pass(NAME_FRESH).await;
                assert_eq!(
                    ask(&names, NAME, Err(absent())).await,
                    (Err(NoAddress::Absent), true)
                );
            })
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn while_no_resolver_answers_the_last_answer_counts_for_a_bounded_time() {
        LocalSet::new()
            .run_until(async {
                let names = Names::default();
                let (answer, _) = ask(&names, NAME, Err(silent())).await;
                assert!(matches!(answer, Err(NoAddress::Unknown(_))), "{answer:?}");
                assert!(
                    ask(&names, NAME, Ok(vec![ip(1)])).await.1,
                    "it is asked again at once"
                );
                pass(NAME_FRESH).await;
                assert_eq!(
                    ask(&names, NAME, Err(silent())).await,
                    (Ok(vec![ip(1)]), true)
                );
                assert_eq!(
                    ask(&names, NAME, Err(silent())).await,
                    (Ok(vec![ip(1)]), false),
                    "not by each request"
                );
                pass(NAME_KEPT - NAME_FRESH - Duration::from_millis(1)).await;
                assert_eq!(
                    ask(&names, NAME, Err(silent())).await,
                    (Ok(vec![ip(1)]), true)
                );
                pass(Duration::from_millis(1)).await;
                let (answer, _) = ask(&names, NAME, Err(silent())).await;
                assert!(matches!(answer, Err(NoAddress::Unknown(_))), "{answer:?}");
            })
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn a_resolver_that_never_answers_is_waited_for_and_keeps_its_place() {
        LocalSet::new()
            .run_until(async {
                let names = Names::default();
                let mut held = Vec::new();
                for number in 0..LOOKUPS_AT_ONCE {
                    let resolver = |_, place| {
                        held.push(place);
                        std::future::pending()
                    };
                    let before = Instant::now();
                    let answer = names
                        .addresses_by(&format!("n{number}.example"), resolver)
                        .await;
                    assert!(matches!(answer, Err(NoAddress::Unknown(_))), "{answer:?}");
                    assert!(before.elapsed() >= LOOKUP_WITHIN);
                }
                assert_eq!(
                    ask(&names, NAME, Ok(vec![ip(1)])).await,
                    (Err(NoAddress::Busy), false)
                );
                drop(held);
                assert_eq!(
                    ask(&names, NAME, Ok(vec![ip(1)])).await,
                    (Ok(vec![ip(1)]), true)
                );
            })
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn names_and_addresses_are_bounded() {
        LocalSet::new()
            .run_until(async {
                let names = Names::default();
                let all: Vec<IpAddr> = (0..10_000_u32)
                    .map(|n| IpAddr::from(n.to_be_bytes()))
                    .collect();
                let (answer, _) = ask(&names, NAME, Ok(all)).await;
                assert_eq!(answer.unwrap().len(), NAME_ADDRESSES_MAX, "F12");
                for number in 0..3 * NAMES_MAX {
                    pass(Duration::from_millis(1)).await;
                    let says = if number % 2 == 0 {
                        Ok(vec![ip(1)])
                    } else {
                        Err(absent())
                    };
                    let _ = ask(&names, &format!("n{number}.example"), says).await;
                }
                assert!(names.0.known.borrow().len() <= NAMES_MAX, "RX8");
                let last = format!("n{}.example", 3 * NAMES_MAX - 2);
                assert_eq!(
                    ask(&names, &last, Err(silent())).await,
                    (Ok(vec![ip(1)]), false)
                );
                pass(NAME_KEPT).await;
                names.sweep();
                assert!(names.0.known.borrow().is_empty());
            })
            .await
    }

    type Says = std::pin::Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>>>>;

    /// A resolver that says something after a while.
    fn after(
        time: Duration,
        says: Vec<IpAddr>,
    ) -> impl FnOnce(String, OwnedSemaphorePermit) -> Says {
        move |_, place| {
            Box::pin(async move {
                sleep(time).await;
                drop(place);
                Ok(says)
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_late_is_kept_for_those_who_ask_then() {
        LocalSet::new()
            .run_until(async {
                let names = Names::default();
                let late = after(LOOKUP_WITHIN + Duration::from_secs(1), vec![ip(1)]);
                let answer = names.addresses_by(NAME, late).await;
                assert!(matches!(answer, Err(NoAddress::Unknown(_))), "{answer:?}");
                let (answer, asked) = ask(&names, NAME, Err(silent())).await;
                assert_eq!(
                    (answer, asked),
                    (Ok(vec![ip(1)]), false),
                    "one question, which is waited for"
                );
                // The client may be gone too.
                let other = "other.example";
                let answer = names.addresses_by(other, after(Duration::from_secs(6), vec![ip(2)]));
                assert!(timeout(Duration::from_secs(1), answer).await.is_err());
                sleep(Duration::from_secs(6)).await;
                let answer = ask(&names, other, Err(silent())).await;
                assert_eq!(answer, (Ok(vec![ip(2)]), false));
                assert!(names.0.asked.borrow().is_empty());
            })
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_resolver_is_heard_where_the_first_is_silent() {
        LocalSet::new()
            .run_until(async {
                // What the C library needs with its defaults: five seconds for the first.
                let names = Names::default();
                let answer =
                    names.addresses_by(NAME, after(Duration::from_millis(5_010), vec![ip(1)]));
                assert_eq!(answer.await.unwrap().to_vec(), [ip(1)]);
            })
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_answer_serves_while_a_new_one_is_asked_for() {
        LocalSet::new()
            .run_until(async {
                let names = Names::default();
                ask(&names, NAME, Ok(vec![ip(1)])).await.0.unwrap();
                pass(NAME_FRESH).await;
                let before = Instant::now();
                let answer = names.addresses_by(NAME, after(Duration::from_secs(6), vec![ip(2)]));
                assert_eq!(answer.await.unwrap().to_vec(), [ip(1)]);
                assert!(before.elapsed() <= 2 * NAME_SOON, "{:?}", before.elapsed());
                let before = Instant::now();
                let answer = ask(&names, NAME, Err(silent())).await;
                assert_eq!(answer, (Ok(vec![ip(1)]), false), "nobody asks twice");
                assert!(before.elapsed() < NAME_SOON, "{:?}", before.elapsed());
                sleep(Duration::from_secs(6)).await;
                let answer = ask(&names, NAME, Err(silent())).await;
                assert_eq!(answer, (Ok(vec![ip(2)]), false));
            })
            .await
    }
}
