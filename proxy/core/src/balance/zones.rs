//! Requests and the zone: simulated endpoints that take a time, have so many workers, fail and come back.

use super::*;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const MS: u64 = 1_000;
const SEC: u64 = 1_000_000;

/// One endpoint as it is in truth.
#[derive(Clone)]
struct Server {
    near: bool,
    /// When each worker is free.
    workers: Vec<u64>,
    service_us: u64,
    /// Answers that say that it fails, at once.
    fails: bool,
}

/// A client, its balancer and all endpoints.
struct World {
    balancer: Balancer<usize>,
    servers: Vec<Server>,
    now_us: u64,
    random: u64,
    /// When answers come: then, which endpoint, when it was asked.
    under_way: BinaryHeap<Reverse<(u64, EndpointId, u64, bool)>>,
    /// One answer in a hundred takes so long, if not 0.
    tail_us: u64,
}

/// What happened in a time.
struct Seen {
    /// The share of requests that stayed.
    near: f64,
    /// 99 of 100 took no longer.
    p99_us: u64,
}

impl World {
    /// So many near and far endpoints of four workers, 10 ms a request; far ones are 1 ms away.
    fn new(near: usize, far: usize) -> Self {
        let mut world = Self {
            balancer: Balancer::new(BalanceConfig::default()),
            servers: Vec::new(),
            now_us: 0,
            random: 1,
            under_way: BinaryHeap::new(),
            tail_us: 0,
        };
        for at in 0..near + far {
            world.servers.push(Server {
                near: at < near,
                workers: vec![0; 4],
                service_us: 10 * MS,
                fails: false,
            });
        }
        world.balancer.update((0..near + far).map(|at| (at, 1)), 0);
        world.balancer.set_near(|at| *at < near);
        world
    }

    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.random)
    }

    fn each(&mut self, near: bool, change: impl Fn(&mut Server)) {
        let servers = self.servers.iter_mut();
        servers.filter(|one| one.near == near).for_each(change);
    }

    /// Answers that came by now.
    fn settle(&mut self) {
        while let Some(Reverse((at, id, started, good))) = self.under_way.peek().copied() {
            if at > self.now_us {
                return;
            }
            self.under_way.pop();
            let outcome = if good {
                Outcome::Answered
            } else {
                Outcome::Rejected
            };
            self.balancer.on_end(id, outcome, started, at, 0);
        }
    }

    /// Requests come at random, so many a second.
    fn run(&mut self, per_sec: u64, secs: u64) -> Seen {
        let end = self.now_us + secs * SEC;
        let (mut near, mut all, mut took) = (0_u32, 0_u32, Vec::new());
        while self.now_us < end {
            let gap = -unit(self.random()).ln() * SEC as f64 / per_sec as f64;
            self.now_us += gap as u64;
            self.settle();
            let now = self.now_us;
            let random = self.random();
            let Pick::Endpoint(id) = self.balancer.pick(random, now) else {
                panic!("an endpoint is open, and none was picked")
            };
            let slow = self.tail_us > 0 && self.random().is_multiple_of(100);
            let at = *self.balancer.get(id).unwrap();
            self.balancer.on_start(id);
            let server = &mut self.servers[at];
            all += 1;
            near += u32::from(server.near);
            let distance = if server.near { 0 } else { MS };
            let answered = if server.fails {
                now + distance + 100
            } else {
                let worker = server.workers.iter_mut().min().unwrap();
                *worker = now.max(*worker) + server.service_us;
                *worker + distance + if slow { self.tail_us } else { 0 }
            };
            took.push(answered - now);
            let good = !server.fails;
            self.under_way.push(Reverse((answered, id, now, good)));
        }
        took.sort_unstable();
        Seen {
            near: f64::from(near) / f64::from(all),
            p99_us: took[took.len() * 99 / 100],
        }
    }
}

#[test]
fn requests_stay_near_while_near_endpoints_have_room() {
    for per_sec in [5, 50, 300] {
        let mut world = World::new(2, 4);
        let seen = world.run(per_sec, 60);
        assert!(seen.near > 0.95, "{per_sec}: {}", seen.near);
        assert!(seen.near < 1.0, "far ones are asked now and then");
    }
    let mut world = World::new(2, 4);
    world.balancer.set_near(|_| false);
    let seen = world.run(300, 10);
    assert!((seen.near - 0.33).abs() < 0.1, "no zone: {}", seen.near);
}

#[test]
fn what_is_too_much_for_the_zone_leaves_it_and_no_more() {
    let mut world = World::new(2, 4);
    world.run(300, 10);
    // Twice what the two can do, and two thirds of what all can.
    let seen = world.run(1_600, 20);
    assert!((0.4..0.6).contains(&seen.near), "{}", seen.near);
    assert!(seen.p99_us < 150 * MS, "{} us", seen.p99_us);
    world.run(300, 5);
    let seen = world.run(300, 10);
    assert!(seen.near > 0.95, "they come back: {}", seen.near);
}

#[test]
fn one_near_endpoint_of_many_is_not_run_over() {
    let mut world = World::new(1, 9);
    let seen = world.run(2_000, 20);
    assert!((0.1..0.3).contains(&seen.near), "{}", seen.near);
    assert!(seen.p99_us < 100 * MS, "{} us", seen.p99_us);
}

#[test]
fn a_zone_that_fails_is_left_and_comes_back() {
    let mut world = World::new(2, 4);
    world.run(200, 10);
    world.each(true, |server| server.fails = true);
    world.run(200, 3);
    let seen = world.run(200, 20);
    let near = seen.near;
    assert!(near < 0.05, "fast failures draw nothing: {near}");
    world.each(true, |server| server.fails = false);
    world.run(200, 30);
    let seen = world.run(200, 20);
    assert!(seen.near > 0.95, "{}", seen.near);
}

#[test]
fn where_both_sides_fail_requests_stay() {
    let mut world = World::new(2, 4);
    world.run(200, 10);
    for near in [true, false] {
        world.each(near, |server| server.fails = true);
    }
    world.run(200, 30);
    let seen = world.run(200, 20);
    assert!(seen.near > 0.9, "{}", seen.near);
}

#[test]
fn a_zone_that_is_slow_is_left_and_comes_back() {
    let mut world = World::new(2, 4);
    world.run(100, 20);
    world.each(true, |server| server.service_us = 50 * MS);
    world.run(100, 10);
    let seen = world.run(100, 20);
    assert!(seen.near < 0.1, "{}", seen.near);
    // Slower than far ones, by less than the ratio.
    world.each(true, |server| server.service_us = 17 * MS);
    world.run(100, 60);
    let seen = world.run(100, 20);
    assert!(seen.near > 0.9, "{}", seen.near);
}

#[test]
fn answers_that_are_slow_now_and_then_move_nobody() {
    for per_sec in [10, 100, 500] {
        let mut world = World::new(2, 8);
        world.tail_us = SEC;
        world.run(per_sec, 60);
        let seen = world.run(per_sec, 100);
        assert!(seen.near > 0.9, "{per_sec}: {}", seen.near);
    }
}

#[test]
fn endpoints_that_are_left_out_take_their_room_with_them() {
    let crowd = |open, pending| Crowd {
        all: 4,
        open,
        pending,
    };
    let zone = Zone::default();
    // No probe: an odd number is no multiple of 50. The high bits, which become the part, are low.
    let stays = |near| zone.stays_near(near, crowd(4, 0), 1);
    assert!(stays(crowd(4, 15)) && !stays(crowd(4, 16)));
    assert!(stays(crowd(1, 3)) && !stays(crowd(1, 4)));
    assert!(!stays(crowd(0, 0)), "nobody is there");
    assert!(!zone.stays_near(crowd(4, 0), crowd(4, 0), 50), "a probe");
}

#[test]
fn requests_never_go_to_nobody() {
    let mut world = World::new(2, 2);
    let eject = |balancer: &mut Balancer<usize>, at: usize| {
        let id = balancer.endpoints[at].id;
        balancer.on_connect_failed(id, 0, 0);
    };
    (0..2).for_each(|at| eject(&mut world.balancer, at));
    for random in 0..500 {
        let Pick::Endpoint(id) = world.balancer.pick(mixed(random), 1) else {
            panic!("two far ones are open")
        };
        assert_eq!(world.balancer.is_near(id), Some(false));
    }
    (2..4).for_each(|at| eject(&mut world.balancer, at));
    assert!(matches!(world.balancer.pick(7, 1), Pick::AllEjected { .. }));
    let mut world = World::new(2, 2);
    (2..4).for_each(|at| eject(&mut world.balancer, at));
    for random in 0..500 {
        let Pick::Endpoint(id) = world.balancer.pick(mixed(random), 1) else {
            panic!("two near ones are open")
        };
        assert_eq!(world.balancer.is_near(id), Some(true));
    }
}

#[test]
fn a_second_try_goes_far_where_there_is_no_other_near() {
    let world = World::new(1, 3);
    let near = world.balancer.endpoints[0].id;
    for random in 0..200 {
        let other = world.balancer.pick_other(near, mixed(random), 0);
        assert_eq!(world.balancer.is_near(other.unwrap()), Some(false));
    }
}

#[test]
fn without_another_side_nothing_is_preferred() {
    for near in [true, false] {
        let mut world = World::new(3, 3);
        world.balancer.set_near(|_| near);
        assert_eq!(world.balancer.side(1, 0), None);
        let id = world.balancer.endpoints[0].id;
        assert_eq!(world.balancer.is_near(id), None);
    }
    let mut world = World::new(1, 1);
    world.balancer.update([(1, 1)], 0);
    world.balancer.set_near(|at| *at == 0);
    assert_eq!(world.balancer.side(1, 0), None, "the near one left");
}

proptest! {
    /// Whatever happened: who is open is picked, and only who is open.
    #[test]
    fn who_is_open_is_picked(
        near in 0..4_usize, far in 0..4_usize, random in any::<u64>(),
        events in prop::collection::vec((0..8_usize, 0..4_u8, 0..9_000_000_u64), 0..60),
    ) {
        let mut balancer = Balancer::new(BalanceConfig::default());
        balancer.update((0..near + far).map(|at| (at, 1)), 0);
        balancer.set_near(|at| *at < near);
        let mut now = 0;
        for (at, what, gap) in events {
            now += gap;
            let Some(id) = balancer.endpoints.get(at).map(|one| one.id) else { continue };
            match what {
                0 => balancer.on_start(id),
                1 => balancer.on_end(id, Outcome::Answered, now.saturating_sub(gap), now, random),
                2 => balancer.on_end(id, Outcome::Rejected, now.saturating_sub(gap), now, random),
                _ => balancer.on_connect_failed(id, random, now),
            }
            let open = balancer.ready(now);
            match balancer.pick(mixed(random ^ now), now) {
                Pick::Endpoint(id) => {
                    prop_assert!(open > 0);
                    let one = balancer.endpoints.iter().find(|one| one.id == id).unwrap();
                    prop_assert!(one.is_open(now));
                }
                Pick::AllEjected { .. } => prop_assert_eq!(open, 0),
                Pick::Empty => prop_assert!(balancer.is_empty()),
            }
        }
    }
}
