//! Runs: up to 64 records that a thread writes under one message key, within one tick of the clock. Whoever reads them
//! one after the other needs that key once, too.
//!
//! To derive a message key and to set up AES-GCM for it costs as much as a small record itself. The records of a run
//! share *U*, and so the key that follows from it; each has 96 random bits of its own as *V*, and its own commitment.
//! Who writes less often than the clock ticks starts a run with each record.
//!
//! INVARIANT: no two records of a run have the same *V* but by chance. A forked child, which finds the key of a run
//! but not the pool of its parent, draws its own; a clone of the machine that noticed no time pass was not safe
//! before either, which is why the tick is mixed into each *U* and ends each run.

use crate::cipher::{MessageCipher, same};
use crate::error::EnvelopeError;
use crate::format::{COMMITMENT_LEN, Header};
use crate::random::{Moment, Pool};
use crate::secret::MessageKey;
use crate::thread::ThreadEntry;
use zeroize::Zeroize;

/// The most records of one run: 2^11 pairs of them, each with a chance of 2^-96 to share its *V*.
const MOST: u32 = 64;

/// A thread's run. Its key lies on the cipher's page and is wiped with the data key's prepared copy at the latest.
pub(crate) struct Run {
    cipher: MessageCipher,
    /// What the commitments are made from, beside the data key.
    seed: aes::Block,
    u: [u8; 16],
    left: u32,
    /// Where the data key lies, in which state of the pool and when the run began.
    index: usize,
    epoch: u64,
    moment: Moment,
}

impl Run {
    pub(crate) fn new() -> Self {
        Self {
            cipher: MessageCipher::empty(),
            seed: aes::Block::default(),
            u: [0; 16],
            left: 0,
            index: 0,
            epoch: 0,
            moment: Moment::at(0),
        }
    }

    /// Writes nonce, commitment and the data key's names into the header of a record, and returns its cipher.
    #[inline]
    pub(crate) fn next(
        &mut self,
        index: usize,
        entry: &ThreadEntry,
        pool: &mut Pool,
        moment: &Moment,
        header: &mut Header,
    ) -> Result<&MessageCipher, EnvelopeError> {
        header.data_key_id = entry.entry.data_key_id;
        header.generation = entry.entry.generation;
        pool.nonce(moment, &mut header.nonce)?;
        let goes_on =
            self.left > 0 && self.index == index && self.epoch == pool.epoch() && self.moment == *moment;
        if !goes_on {
            self.begin(entry, header)?;
            (self.index, self.epoch, self.moment) = (index, pool.epoch(), *moment);
        }
        self.left -= 1;
        header.nonce.u = self.u;
        entry.key.commit(&self.seed, &header.nonce, &mut header.commitment);
        self.cipher.set_nonce(&header.nonce);
        Ok(&self.cipher)
    }

    fn begin(&mut self, entry: &ThreadEntry, header: &Header) -> Result<(), EnvelopeError> {
        self.left = 0;
        let mut key = MessageKey::empty();
        entry.key.derive(&header.nonce, &mut key);
        self.cipher.set_key(&key)?;
        self.u = header.nonce.u;
        self.seed = *key.seed();
        self.left = MOST;
        Ok(())
    }

    /// Ends the run that writes with the data key at this place.
    pub(crate) fn end_of(&mut self, index: usize) {
        if self.index == index {
            self.end();
        }
    }

    /// Ends whatever run there is, and wipes its key.
    pub(crate) fn end(&mut self) {
        self.left = 0;
        self.cipher.wipe();
        self.seed.zeroize();
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.end();
    }
}

/// The message key with which a thread read last. It is wiped with the data key's prepared copy at the latest, as that
/// of a run that is written.
pub(crate) struct LastRead {
    cipher: MessageCipher,
    seed: aes::Block,
    u: [u8; 16],
    /// Where the data key lies; `None`: there is no message key.
    index: Option<usize>,
}

impl LastRead {
    pub(crate) fn new() -> Self {
        Self { cipher: MessageCipher::empty(), seed: aes::Block::default(), u: [0; 16], index: None }
    }

    /// The cipher of the record with this header, which must commit to its key.
    #[inline]
    pub(crate) fn of(
        &mut self,
        index: usize,
        entry: &ThreadEntry,
        header: &Header,
    ) -> Result<&MessageCipher, EnvelopeError> {
        if self.index == Some(index) && self.u == header.nonce.u {
            committed(entry, &self.seed, header)?;
        } else {
            let mut key = MessageKey::empty();
            entry.key.derive(&header.nonce, &mut key);
            committed(entry, key.seed(), header)?;
            self.index = None;
            self.cipher.set_key(&key)?;
            (self.u, self.seed, self.index) = (header.nonce.u, *key.seed(), Some(index));
        }
        self.cipher.set_nonce(&header.nonce);
        Ok(&self.cipher)
    }

    /// Forgets a message key of the data key at this place.
    pub(crate) fn end_of(&mut self, index: usize) {
        if self.index == Some(index) {
            self.end();
        }
    }

    fn end(&mut self) {
        self.index = None;
        self.cipher.wipe();
        self.seed.zeroize();
    }
}

impl Drop for LastRead {
    fn drop(&mut self) {
        self.end();
    }
}

/// INVARIANT: whoever decrypts has looked here first, also with a key that was there already: each record has a
/// commitment of its own.
#[inline]
pub(crate) fn committed(
    entry: &ThreadEntry,
    seed: &aes::Block,
    header: &Header,
) -> Result<(), EnvelopeError> {
    let mut commitment = [0; COMMITMENT_LEN];
    entry.key.commit(seed, &header.nonce, &mut commitment);
    if header.generation != entry.entry.generation || !same(&commitment, &header.commitment) {
        return Err(EnvelopeError::TamperedOrWrongContext);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cipher::Chunk;

    #[test]
    fn a_run_that_was_ended_has_no_key_left() {
        let mut run = Run::new();
        let key = MessageKey::empty();
        assert!(run.cipher.set_key(&key).is_ok());
        (run.left, run.index, run.seed) = (MOST, 7, [1; 16].into());
        let mut out = Vec::new();
        assert!(run.cipher.seal(Chunk::Whole, b"", b"x", &mut out).is_ok());

        run.end_of(8);
        assert_eq!(run.left, MOST, "it is another data key's");
        run.end_of(7);
        assert_eq!((run.left, run.seed), (0, aes::Block::default()));
        assert!(run.cipher.is_blank());
        assert!(run.cipher.seal(Chunk::Whole, b"", b"x", &mut out).is_err());
    }

    #[test]
    fn a_message_key_that_was_read_with_is_gone_with_its_data_key() {
        let mut read = LastRead::new();
        assert!(read.cipher.set_key(&MessageKey::empty()).is_ok());
        (read.index, read.seed) = (Some(7), [1; 16].into());

        read.end_of(8);
        assert_eq!(read.index, Some(7), "it is another data key's");
        read.end_of(7);
        assert_eq!((read.index, read.seed), (None, aes::Block::default()));
        assert!(read.cipher.is_blank());
    }
}
