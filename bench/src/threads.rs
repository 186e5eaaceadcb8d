//! Two threads against one, each on a core of its own.
//!
//! A machine of two virtual cores is never still: what one thread does alone now and two do together a second later says
//! more of the neighbours than of the library. So the same two threads work in turns of a few milliseconds, one alone,
//! the other alone, both together, and each round gives one figure of its own: what both did together over what one did
//! alone, on average of the two cores. The line is the median over all rounds. The limit takes the same turns in
//! the same rounds; it shares nothing at all, so what it misses of 2 is the machine's.

use crate::measure::{median, pin};
use crate::{NOTE, Result};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use claviger_envelope::{Envelope, Instance};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};

const SIZE: usize = 1024;
const ROUNDS: usize = 101;
const TURN: Duration = Duration::from_millis(5);

/// Who works in a turn.
const TURNS: [[bool; 2]; 3] = [[true, false], [false, true], [true, true]];

pub fn scaling(runtime: &tokio::runtime::Runtime, client: &Envelope) -> Result<()> {
    for tenants in [1_usize, 10_000] {
        let handles: Vec<_> =
            (0..tenants).map(|n| client.instance(&format!("org-{n}"), "site", "jira")).collect();
        for handle in &handles {
            runtime.block_on(handle.encrypt(&NOTE, b"warm"))?;
        }
        // Of each round: what is measured, the turn, the core.
        let rates = Mutex::new(vec![[[[0.0_f64; 2]; 3]; 2]; ROUNDS]);
        let (barrier, in_step) = (Barrier::new(2), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for core in 0..2 {
                let (rates, barrier, in_step, handles) = (&rates, &barrier, &in_step, &handles);
                scope.spawn(move || {
                    pin(core);
                    let (mut ours, mut limit) = (ours(handles), limit());
                    let mut steps = 0;
                    for round in 0..ROUNDS {
                        for (turn, works) in TURNS.iter().enumerate() {
                            for what in 0..2 {
                                // Who does not work sleeps here.
                                barrier.wait();
                                if !works[core] {
                                    continue;
                                }
                                if works == &[true, true] {
                                    steps += 2;
                                    meet(in_step, steps);
                                }
                                let rate = if what == 0 { rate(&mut ours) } else { rate(&mut limit) };
                                let mut rates = rates.lock().unwrap_or_else(PoisonError::into_inner);
                                rates[round][what][turn][core] = rate;
                            }
                        }
                    }
                });
            }
        });
        let rates = rates.into_inner().unwrap_or_else(PoisonError::into_inner);
        let scaling = |what: usize| {
            median(
                rates
                    .iter()
                    .map(|round| {
                        let [[first, _], [_, second], both] = round[what];
                        (both[0] + both[1]) / ((first + second) / 2.0)
                    })
                    .collect(),
            )
        };
        println!("bench envelope.threads tenants={tenants} size={SIZE} scaling={:.2}", scaling(0));
        println!(
            "bench envelope.threads-detail tenants={tenants} size={SIZE} limit_scaling={:.2} rounds={ROUNDS}",
            scaling(1)
        );
    }
    Ok(())
}

/// Both begin within a microsecond of one another.
fn meet(in_step: &AtomicUsize, all: usize) {
    in_step.fetch_add(1, Ordering::AcqRel);
    while in_step.load(Ordering::Acquire) < all {
        std::hint::spin_loop();
    }
}

/// Operations a second.
fn rate(operation: &mut impl FnMut() -> bool) -> f64 {
    let (mut n, began) = (0_u64, Instant::now());
    loop {
        n += (0..64).map(|_| u64::from(operation())).sum::<u64>();
        let elapsed = began.elapsed();
        if elapsed >= TURN {
            return n as f64 / elapsed.as_secs_f64();
        }
    }
}

fn ours(handles: &[Instance]) -> impl FnMut() -> bool {
    let (plain, mut out, mut next) = (vec![1; SIZE], Vec::new(), handles.iter().cycle());
    for handle in handles {
        let _ = handle.try_encrypt_into(&NOTE, &plain, &mut out);
    }
    move || next.next().is_some_and(|handle| handle.try_encrypt_into(&NOTE, &plain, &mut out).is_ok())
}

fn limit() -> impl FnMut() -> bool {
    let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).map(LessSafeKey::new);
    let (mut buffer, aad) = (vec![1; SIZE], [9_u8; 112]);
    move || {
        let nonce = Nonce::assume_unique_for_key([1; 12]);
        key.as_ref()
            .is_ok_and(|key| key.seal_in_place_separate_tag(nonce, Aad::from(&aad), &mut buffer).is_ok())
    }
}
