//! epoll with our own numbers, and a timer that is as exact as the kernel's.

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

const TIMER: u64 = u64::MAX;

/// What to wait for.
#[derive(Clone, Copy)]
pub enum Interest {
    Read,
    Write,
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        match self {
            Self::Read => epoll::EventFlags::IN,
            Self::Write => epoll::EventFlags::OUT,
        }
    }
}

pub struct Poll {
    epoll: OwnedFd,
    timer: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poll {
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN | epoll::EventFlags::ET)?;
        Ok(Self { epoll, timer, events: Vec::with_capacity(256) })
    }

    pub fn add(&self, what: impl AsFd, number: usize, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, what, epoll::EventData::new_u64(number as u64), interest.flags())?)
    }

    pub fn change(&self, what: impl AsFd, number: usize, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, what, epoll::EventData::new_u64(number as u64), interest.flags())?)
    }

    pub fn remove(&self, what: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, what)?)
    }

    /// Makes the next wait end after this time at the latest.
    pub fn wake_in(&self, time: Duration) -> io::Result<()> {
        let it_value = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos().max(1)) };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    /// Numbers of what is ready; at most 100 ms later, perhaps none.
    pub fn wait(&mut self) -> io::Result<Vec<usize>> {
        self.events.clear();
        let longest = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&longest))?;
        let numbers = self.events.iter().map(|event| event.data.u64());
        Ok(numbers.filter(|number| *number != TIMER).map(|number| number as usize).collect())
    }
}
