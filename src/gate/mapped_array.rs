//! An array of the contract whose entries the programs change all the time. It is read through a mapping,
//! in words of 64 bits: a system call may copy an entry byte by byte while a CPU writes it.

use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use libbpf_rs::MapHandle;
use nix::errno::Errno;
use plain::Plain;

use super::error::GateError;
use super::typed_map::TypedMap;

/// A mappable array whose values are `V`, each a whole number of 64-bit words.
pub struct MappedArray<V> {
    map: TypedMap<u32, V>,
    name: &'static str,
}

impl<V: Plain + Copy + Default> MappedArray<V> {
    /// Takes a map, and checks that its sizes are those of the types.
    pub(super) fn new(name: &'static str, handle: MapHandle) -> Result<Self, GateError> {
        const { assert!(size_of::<V>().is_multiple_of(size_of::<u64>())) };
        Ok(Self { map: TypedMap::new(name, handle)?, name })
    }

    /// Maps `count` entries from the entry `from` on. They take the memory of this process until the
    /// window is dropped.
    ///
    /// # Errors
    /// When the map has fewer entries, or the kernel refuses.
    pub fn map(&self, from: u32, count: u32) -> Result<Window<V>, GateError> {
        self.map_as(from, count, libc::PROT_READ)
    }

    fn map_as(&self, from: u32, count: u32, protection: libc::c_int) -> Result<Window<V>, GateError> {
        let failed =
            |errno| GateError::Kernelside { what: format!("could not map the table `{}`", self.name), errno };
        if from.checked_add(count).is_none_or(|end| end > self.map.capacity()) {
            return Err(failed(Errno::ERANGE));
        }
        let start = from as usize * size_of::<V>();
        let bytes = count as usize * size_of::<V>();
        Window::new(self.handle().as_fd(), start, bytes, protection).map_err(failed)
    }

    /// As [`MappedArray::map`], and the entries can be changed.
    pub(super) fn map_for_writing(&self, from: u32, count: u32) -> Result<WritableWindow<V>, GateError> {
        self.map_as(from, count, libc::PROT_READ | libc::PROT_WRITE).map(WritableWindow)
    }

    /// The entry `index`, by a system call. For single entries, whose words may be of several moments.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn get(&self, index: u32) -> Result<Option<V>, GateError> {
        self.map.get(&index)
    }

    /// The most entries it can hold.
    pub fn capacity(&self) -> u32 {
        self.map.capacity()
    }

    /// The map itself, for what has no type.
    pub fn handle(&self) -> &MapHandle {
        self.map.handle()
    }
}

/// Some entries of a [`MappedArray`], as the programs write them.
pub struct Window<V> {
    mapping: NonNull<libc::c_void>,
    mapped_bytes: usize,
    /// Bytes of the mapping before the first entry.
    skipped: usize,
    entries: usize,
    types: PhantomData<V>,
}

impl<V: Plain + Copy + Default> Window<V> {
    fn new(map: BorrowedFd<'_>, start: usize, bytes: usize, protection: libc::c_int) -> Result<Self, Errno> {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?
            .and_then(|page| usize::try_from(page).ok())
            .unwrap_or(4096);
        let skipped = start % page;
        let mapped_bytes = (skipped + bytes).max(1);
        let offset = libc::off_t::try_from(start - skipped).map_err(|_| Errno::EOVERFLOW)?;
        // SAFETY: a mapping at an address that the kernel chooses touches no other memory. The kernel
        // refuses what lies beyond the end of the map.
        let mapping = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped_bytes,
                protection,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                offset,
            )
        };
        if mapping == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let mapping = NonNull::new(mapping).ok_or(Errno::EFAULT)?;
        let entries = bytes / size_of::<V>();
        Ok(Self { mapping, mapped_bytes, skipped, entries, types: PhantomData })
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The entry `index` of the window, each word as it was at one moment, and the words in their order.
    /// `None`: it is not in the window.
    pub fn get(&self, index: usize) -> Option<V> {
        if index >= self.entries {
            return None;
        }
        let mut value = V::default();
        // SAFETY: `V` is plain, so its bytes may be anything.
        let bytes = unsafe { plain::as_mut_bytes(&mut value) };
        for (number, word) in bytes.chunks_exact_mut(size_of::<u64>()).enumerate() {
            word.copy_from_slice(&self.word(index, number)?.load(Ordering::Acquire).to_ne_bytes());
        }
        Some(value)
    }

    /// The word `number` of the entry `index`. `None`: it is not in the window.
    fn word(&self, index: usize, number: usize) -> Option<&AtomicU64> {
        if index >= self.entries || number >= size_of::<V>() / size_of::<u64>() {
            return None;
        }
        let word = (self.skipped + index * size_of::<V>()) / size_of::<u64>() + number;
        // SAFETY: the word lies in the mapping, which lives as long as `self`. It is aligned, because the
        // mapping begins at a page and entries are whole words. Programs may write it meanwhile, and so it
        // is an atomic.
        Some(unsafe { AtomicU64::from_ptr(self.mapping.as_ptr().cast::<u64>().add(word)) })
    }
}

/// Some entries of a [`MappedArray`], which this process and the programs change.
pub(super) struct WritableWindow<V>(Window<V>);

impl<V: Plain + Copy + Default> WritableWindow<V> {
    /// The entry `index`, as [`Window::get`].
    pub(super) fn get(&self, index: usize) -> Option<V> {
        self.0.get(index)
    }

    /// Sets the word `number` of the entry `index`.
    pub(super) fn set_word(&self, index: usize, number: usize, value: u64) {
        if let Some(word) = self.0.word(index, number) {
            word.store(value, Ordering::Release);
        }
    }
}

impl WritableWindow<u64> {
    /// Makes all words 0.
    pub(super) fn clear(&self) {
        (0..self.0.len()).filter_map(|index| self.0.word(index, 0)).for_each(|word| {
            word.store(0, Ordering::Release);
        });
    }

    /// Sets bits of the word `index`, and leaves those that a program sets meanwhile.
    pub(super) fn set_bits(&self, index: usize, bits: u64) {
        if let Some(word) = self.0.word(index, 0) {
            word.fetch_or(bits, Ordering::AcqRel);
        }
    }
}

impl<V> Drop for Window<V> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing borrows from it any more.
        unsafe { libc::munmap(self.mapping.as_ptr(), self.mapped_bytes) };
    }
}
