//! Shared memory of a block, and for every word who touched it since the last barrier.

use super::fault::Fault;

/// The thread of a stamp that stands for more than one.
const SEVERAL: u64 = 0xffff;
/// In a stamp of a writer: the copy is still on its way.
const PENDING: u64 = 1 << 31;

/// Shared memory. A stamp is the number of barriers before it, above a thread's number plus one.
pub struct Shared {
    words: Vec<u32>,
    wrote: Vec<u64>,
    read: Vec<u64>,
    /// Barriers so far, of all blocks that had this memory.
    epoch: u64,
    /// The epoch in which the block began.
    began: u64,
    /// Words copied and by whom: in groups that were committed, and since.
    groups: Vec<Vec<(u32, u16)>>,
    open: Vec<(u32, u16)>,
    /// The epoch in which each thread last let tensor cores see what it wrote.
    shown: Vec<u64>,
}

impl Shared {
    /// So many bytes, of a block of so many threads.
    pub fn new(bytes: usize, threads: usize) -> Shared {
        let words = bytes.div_ceil(4);
        Shared {
            words: vec![0; words],
            wrote: vec![0; words],
            read: vec![0; words],
            epoch: 1,
            began: 1,
            groups: vec![],
            open: vec![],
            shown: vec![0; threads],
        }
    }

    /// Barriers so far, of all blocks that had this memory.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A thread lets tensor cores see what it wrote.
    pub fn show(&mut self, thread: usize) {
        self.shown[thread] = self.epoch;
    }

    /// Whether a word was written, or a copy to it begun, since an epoch began.
    pub fn changed(&self, word: u32, epoch: u64) -> bool {
        self.wrote[word as usize] >> 32 >= epoch
    }

    /// Reads 16 bytes of a matrix for the warpgroup of a thread: by tensor cores, which see only what was shown to them.
    #[inline(always)]
    pub fn load_matrix_part(&mut self, address: u64, thread: usize) -> Result<[u32; 4], Fault> {
        let first = self.find(address, 16, thread)?;
        let all = self.epoch << 32 | SEVERAL;
        let mut words = [0; 4];
        for (i, word) in words.iter_mut().enumerate() {
            self.check_read(first + i, all, thread)?;
            let wrote = self.wrote[first + i];
            let writer = (wrote & 0xffff) as usize - 1;
            if self.shown[writer] < (wrote & !PENDING) >> 32 {
                let what = format!(
                    "wgmma reads what thread {writer} wrote and did not show: fence.proxy.async is missing"
                );
                return Err(Fault::new(thread, what));
            }
            *word = self.words[first + i];
        }
        Ok(words)
    }

    /// A block begins: nothing is written.
    pub fn begin(&mut self) {
        self.epoch += 1;
        self.began = self.epoch;
        self.groups.clear();
        self.open.clear();
    }

    /// All threads met.
    pub fn barrier(&mut self) {
        self.epoch += 1;
    }

    fn find(&self, address: u64, bytes: usize, thread: usize) -> Result<usize, Fault> {
        let size = 4 * self.words.len() as u64;
        if address.checked_add(bytes as u64).is_none_or(|end| end > size) {
            return Err(Fault::new(
                thread,
                format!(
                    "access out of bounds: {bytes} bytes at {address:#x} of shared memory, which has {size} bytes"
                ),
            ));
        }
        if !address.is_multiple_of(bytes as u64) {
            return Err(Fault::new(
                thread,
                format!("misaligned access: {bytes} bytes at {address:#x} of shared memory"),
            ));
        }
        Ok(address as usize / 4)
    }

    fn mine(&self, thread: usize) -> u64 {
        self.epoch << 32 | (thread as u64 + 1)
    }

    /// Reads `words` words.
    #[inline(always)]
    pub fn load(
        &mut self,
        address: u64,
        words: usize,
        thread: usize,
        to: &mut [u32; 4],
    ) -> Result<(), Fault> {
        let first = self.find(address, 4 * words, thread)?;
        let mine = self.mine(thread);
        for (i, to) in to.iter_mut().take(words).enumerate() {
            let at = first + i;
            self.check_read(at, mine, thread)?;
            *to = self.words[at];
        }
        Ok(())
    }

    #[inline(always)]
    fn check_read(&mut self, at: usize, mine: u64, thread: usize) -> Result<(), Fault> {
        let wrote = self.wrote[at];
        // Written in this block, before the last barrier, and arrived: nothing else to ask.
        let plain = wrote >> 32 >= self.began && wrote >> 32 < self.epoch && wrote & PENDING == 0;
        if !plain && wrote != mine {
            return Err(self.bad_read(wrote, thread));
        }
        let read = self.read[at];
        if read != mine {
            self.read[at] = match read >> 32 == self.epoch {
                true => self.epoch << 32 | SEVERAL,
                false => mine,
            };
        }
        Ok(())
    }

    #[cold]
    fn bad_read(&self, wrote: u64, thread: usize) -> Fault {
        let other = (wrote & 0xffff) as i64 - 1;
        let what = if wrote >> 32 < self.began {
            "reads shared memory that nothing wrote".to_string()
        } else if wrote & PENDING != 0 {
            format!("reads what a copy of thread {other} is still bringing: cp.async.wait_group is missing")
        } else {
            format!("race within the block: reads what thread {other} wrote with no barrier between")
        };
        Fault::new(thread, what)
    }

    #[inline(always)]
    fn check_write(&self, at: usize, mine: u64, thread: usize) -> Result<(), Fault> {
        let (wrote, read) = (self.wrote[at], self.read[at]);
        let pending = wrote & PENDING != 0 && wrote >> 32 >= self.began;
        let written = wrote >> 32 == self.epoch && wrote != mine;
        let being_read = read >> 32 == self.epoch && read != mine;
        if !(pending || written || being_read) {
            return Ok(());
        }
        let (other, does) = match pending || written {
            true => ((wrote & 0xffff) as i64 - 1, "wrote"),
            false => ((read & 0xffff) as i64 - 1, "read"),
        };
        let other = match other + 1 == SEVERAL as i64 {
            true => "several threads".to_string(),
            false => format!("thread {other}"),
        };
        Err(Fault::new(
            thread,
            format!("race within the block: writes what {other} {does} with no barrier between"),
        ))
    }

    /// Writes `words` words.
    #[inline(always)]
    pub fn store(&mut self, address: u64, words: usize, thread: usize, from: &[u32; 4]) -> Result<(), Fault> {
        let first = self.find(address, 4 * words, thread)?;
        let mine = self.mine(thread);
        for (i, &from) in from.iter().take(words).enumerate() {
            self.check_write(first + i, mine, thread)?;
            self.wrote[first + i] = mine;
            self.words[first + i] = from;
        }
        Ok(())
    }

    /// Reads one or two bytes, which count as their word.
    pub fn load_bytes(&mut self, address: u64, bytes: usize, thread: usize) -> Result<u32, Fault> {
        let at = self.find(address, bytes, thread)?;
        self.check_read(at, self.mine(thread), thread)?;
        let value = self.words[at] >> (address % 4 * 8);
        Ok(if bytes == 1 { value & 0xff } else { value & 0xffff })
    }

    /// Writes one or two bytes, which count as their word.
    pub fn store_bytes(
        &mut self,
        address: u64,
        bytes: usize,
        thread: usize,
        value: u32,
    ) -> Result<(), Fault> {
        let at = self.find(address, bytes, thread)?;
        let mine = self.mine(thread);
        self.check_write(at, mine, thread)?;
        let (shift, bits) = (address % 4 * 8, if bytes == 1 { 0xff } else { 0xffff });
        self.wrote[at] = mine;
        self.words[at] = self.words[at] & !(bits << shift) | (value & bits) << shift;
        Ok(())
    }

    /// Changes a word as one step; returns what it was. Such changes do not race with each other.
    pub fn update(&mut self, address: u64, thread: usize, change: impl Fn(u32) -> u32) -> Result<u32, Fault> {
        let at = self.find(address, 4, thread)?;
        if self.wrote[at] >> 32 < self.began {
            return Err(self.bad_read(self.wrote[at], thread));
        }
        let before = self.words[at];
        self.words[at] = change(before);
        Ok(before)
    }

    /// Begins a copy of `words` words, whose values are known but not there yet.
    #[inline(always)]
    pub fn copy(&mut self, address: u64, words: usize, thread: usize, from: &[u32; 4]) -> Result<(), Fault> {
        let first = self.find(address, 4 * words, thread)?;
        let mine = self.mine(thread);
        for (i, &from) in from.iter().take(words).enumerate() {
            self.check_write(first + i, mine, thread)?;
            self.wrote[first + i] = mine | PENDING;
            self.words[first + i] = from;
            self.open.push(((first + i) as u32, thread as u16));
        }
        Ok(())
    }

    /// Makes a group of the copies since the last one.
    pub fn commit(&mut self) {
        self.groups.push(std::mem::take(&mut self.open));
    }

    /// Waits until at most `left` groups are on their way: each thread sees what it copied.
    pub fn wait(&mut self, left: usize) {
        let done = self.groups.len().saturating_sub(left);
        for (word, thread) in self.groups.drain(..done).flatten() {
            self.wrote[word as usize] = self.epoch << 32 | (u64::from(thread) + 1);
        }
    }
}
