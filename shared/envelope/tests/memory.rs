//! After a close, no byte of a data key is left anywhere in the process. Alone in its file: it scans everything.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use async_trait::async_trait;
use claviger_envelope::source::{DataKey, Proof, SourceError, Wanted};
use claviger_envelope::testing::TestCloud;
use claviger_envelope::transport::{Opener, seal_for};
use claviger_envelope::{Config, Context, Envelope, InstanceName, KeyBytes, KeySource};
use std::io::{Read, Seek, SeekFrom};
use std::sync::{Arc, Barrier};
use uuid::Uuid;

const NOTE: Context<'static> = Context::new("note", "n-1");
const MASK: u8 = 0xA5;

/// Knows the key only in a masked form, so that the scan finds the library's copies and not the test's.
struct Masked {
    id: Uuid,
    masked: [u8; 32],
    cloud: Arc<TestCloud>,
}

#[async_trait]
impl KeySource for Masked {
    async fn fetch(&self, _: &InstanceName, _: Wanted) -> Result<DataKey, SourceError> {
        // As over the wire: sealed by the broker's side, opened by the library's.
        let raw = KeyBytes::fill_with(|out| {
            for (to, from) in out.iter_mut().zip(self.masked) {
                *to = from ^ MASK;
            }
            Ok::<_, SourceError>(())
        })?;
        let opener = Opener::new().unwrap();
        let sealed = seal_for(&opener.transport_key(), self.id, raw.expose()).unwrap();
        let now = self.cloud.clock.now().wall;
        Ok(DataKey {
            policy_id: TestCloud::policy_of("acme"),
            organisation_id: "id-acme".into(),
            instance_id: "id-acme-eng".into(),
            shard: 0,
            epoch: 1,
            generation: 1,
            data_key_id: self.id,
            version: 1,
            current: true,
            key: opener.open(&sealed, self.id).unwrap(),
            not_after: now + 300_000,
            proven_until: now + 10_000,
            created_at: None,
            kms_calls: 1,
        })
    }

    async fn prove(&self, _: &[String]) -> Result<Vec<Proof>, SourceError> {
        Ok(Vec::new())
    }
}

/// Where either half of the key lies in this process's memory. The buffer into which it reads is left out.
fn copies(masked: &[u8; 32]) -> Vec<String> {
    const STEP: usize = 1 << 20;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut memory = std::fs::File::open("/proc/self/mem").unwrap();
    let mut found = Vec::new();
    let mut buffer = vec![0_u8; STEP];
    let own = buffer.as_ptr() as u64..buffer.as_ptr() as u64 + STEP as u64;
    for line in maps.lines() {
        let mut parts = line.split_whitespace();
        let (range, rights) = (parts.next().unwrap(), parts.next().unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let mut at = u64::from_str_radix(start, 16).unwrap();
        let end = u64::from_str_radix(end, 16).unwrap();
        while at < end {
            if own.contains(&at) {
                at = own.end;
                continue;
            }
            let stop = if at < own.start { end.min(own.start) } else { end };
            let want = usize::try_from((stop - at).min(STEP as u64)).unwrap();
            memory.seek(SeekFrom::Start(at)).unwrap();
            let Ok(got) = memory.read(&mut buffer[..want]) else { break };
            for half in masked.chunks(16) {
                for (offset, window) in buffer[..got].windows(16).enumerate() {
                    if window[0] == half[0] ^ MASK && window.iter().zip(half).all(|(a, b)| *a == *b ^ MASK) {
                        found.push(format!("{:x} in {line}", at + offset as u64));
                    }
                }
            }
            buffer[..got].fill(0);
            // Chunks overlap, so that nothing hides on a border.
            at += if got == want && at + (got as u64) < stop { got as u64 - 16 } else { got.max(1) as u64 };
        }
    }
    found
}

#[test]
fn r7_after_a_close_a_scan_of_the_whole_process_finds_no_data_key() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let cloud = TestCloud::new();
    let mut masked = [0; 32];
    aws_lc_rs_fill(&mut masked);
    let masked = Box::new(masked);
    let source = Masked { id: Uuid::now_v7(), masked: *masked, cloud: cloud.clone() };
    let client = Envelope::builder()
        .fence(cloud.clone())
        .keys(source)
        .config(Config::default())
        .clock(cloud.clock.clone())
        .manual()
        .start()
        .unwrap();
    let acme = client.instance("acme", "acme-eng", "jira");
    let record = runtime.block_on(acme.encrypt(&NOTE, b"secret")).unwrap();
    assert!(!copies(&masked).is_empty(), "the scan can find a key that is in use");

    // Threads that used the key and then sleep on, with whatever they left on their stacks.
    let used = Arc::new(Barrier::new(5));
    let scanned = Arc::new(Barrier::new(5));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (acme, record, used, scanned) = (acme.clone(), record.clone(), used.clone(), scanned.clone());
            std::thread::spawn(move || {
                for _ in 0..100 {
                    acme.try_encrypt(&NOTE, b"x").unwrap();
                    acme.try_decrypt(&NOTE, &record).unwrap();
                }
                used.wait();
                scanned.wait();
            })
        })
        .collect();
    used.wait();
    let during = copies(&masked);
    cloud.close("acme");
    runtime.block_on(client.poll()).unwrap();
    let after = copies(&masked);
    scanned.wait();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(
        during.len() >= 10,
        "both halves of one raw key and of a prepared one in each thread, {during:#?}"
    );
    assert!(after.is_empty(), "{after:#?}");
}

fn aws_lc_rs_fill(out: &mut [u8; 32]) {
    let key = KeyBytes::generate().unwrap();
    for (to, from) in out.iter_mut().zip(key.expose()) {
        *to = from ^ MASK;
    }
}
