//! A map whose keys and values are types of the contract.

use std::fs;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, libbpf_sys};
use nix::errno::Errno;
use plain::Plain;

use super::error::GateError;
use super::fault;

/// Entries moved by one system call.
const BATCH: usize = 4096;
/// Beyond this, no bucket of a hash is that large.
const MOST_AT_ONCE: usize = 1 << 24;

/// A map whose keys are `K` and whose values are `V`.
pub struct TypedMap<K, V> {
    handle: MapHandle,
    name: &'static str,
    types: PhantomData<(K, V)>,
}

impl<K: Plain + Copy + Default, V: Plain + Copy + Default> TypedMap<K, V> {
    /// Takes a map, and checks that its sizes are those of the types.
    pub(super) fn new(name: &'static str, handle: MapHandle) -> Result<Self, GateError> {
        let (key, value) = (size_of::<K>() as u32, size_of::<V>() as u32);
        if (handle.key_size(), handle.value_size()) != (key, value) {
            return Err(GateError::Other {
                what: format!("the map `{name}` is not ours"),
                why: format!(
                    "its key and value have {} and {} bytes, not {key} and {value}",
                    handle.key_size(),
                    handle.value_size()
                ),
            });
        }
        Ok(Self { handle, name, types: PhantomData })
    }

    /// Makes a map that nothing holds yet but this process.
    pub(super) fn create(
        name: &'static str,
        map_type: MapType,
        flags: u32,
        entries: usize,
    ) -> Result<Self, GateError> {
        let options = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
            map_flags: flags,
            ..Default::default()
        };
        let entries = u32::try_from(entries.max(1)).unwrap_or(u32::MAX);
        let handle = MapHandle::create(
            map_type,
            Some(name),
            size_of::<K>() as u32,
            size_of::<V>() as u32,
            entries,
            &options,
        )
        .map_err(|error| {
            GateError::from_libbpf(format!("could not make the table `{name}` of {entries} entries"), &error)
        })?;
        Self::new(name, handle)
    }

    /// The most entries it can hold.
    pub fn capacity(&self) -> u32 {
        self.handle.max_entries()
    }

    /// The value of a key. `None`: the key is not there.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn get(&self, key: &K) -> Result<Option<V>, GateError> {
        let mut value = V::default();
        // SAFETY: `V` is plain, so its bytes may be anything.
        let bytes = unsafe { plain::as_mut_bytes(&mut value) };
        let found = self
            .handle
            .lookup_into(bytes_of(key), bytes, MapFlags::ANY)
            .map_err(|error| self.failed("read", &error))?;
        Ok(found.then_some(value))
    }

    /// Writes an entry. With `NO_EXIST` in `flags` an existing entry stays as it is, without an error.
    ///
    /// # Errors
    /// When the map is full, or the kernel refuses to write.
    pub fn put(&self, key: &K, value: &V, flags: MapFlags) -> Result<(), GateError> {
        fault::point();
        match self.handle.update(bytes_of(key), bytes_of(value), flags) {
            Ok(()) => Ok(()),
            Err(error)
                if flags.contains(MapFlags::NO_EXIST)
                    && error.kind() == libbpf_rs::ErrorKind::AlreadyExists =>
            {
                Ok(())
            }
            Err(error) => Err(self.failed("write", &error)),
        }
    }

    /// Writes many entries with few system calls.
    ///
    /// # Errors
    /// When the map is full, or the kernel refuses to write. Some entries may be written then.
    pub fn put_all(&self, entries: &[(K, V)]) -> Result<(), GateError> {
        let mut keys = Vec::with_capacity(BATCH.min(entries.len()) * size_of::<K>());
        let mut values = Vec::with_capacity(BATCH.min(entries.len()) * size_of::<V>());
        for batch in entries.chunks(BATCH) {
            keys.clear();
            values.clear();
            for (key, value) in batch {
                keys.extend_from_slice(bytes_of(key));
                values.extend_from_slice(bytes_of(value));
            }
            fault::point();
            self.handle
                .update_batch(&keys, &values, batch.len() as u32, MapFlags::ANY, MapFlags::ANY)
                .map_err(|error| self.failed("fill", &error))?;
        }
        Ok(())
    }

    /// Removes an entry, and returns whether it was there.
    ///
    /// # Errors
    /// When the kernel refuses to delete.
    pub fn remove(&self, key: &K) -> Result<bool, GateError> {
        fault::point();
        match self.handle.delete(bytes_of(key)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == libbpf_rs::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failed("delete from", &error)),
        }
    }

    /// Takes an entry away, and returns it as it was then. Of hashes alone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take(&self, key: &K) -> Result<Option<V>, GateError> {
        fault::point();
        let bytes = self
            .handle
            .lookup_and_delete(bytes_of(key))
            .map_err(|error| self.failed("delete from", &error))?;
        Ok(bytes.as_deref().and_then(from_bytes))
    }

    /// A snapshot of all entries. Entries that come or go meanwhile may be in it or not.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn entries(&self) -> Result<Vec<(K, V)>, GateError> {
        let mut entries = Vec::new();
        self.visit(|key, value| entries.push((*key, *value)))?;
        Ok(entries)
    }

    /// Shows `visitor` all entries, one by one: a large map is not kept whole.
    ///
    /// # Errors
    /// When the kernel refuses to read. Some entries may have been shown then.
    pub fn visit(&self, visitor: impl FnMut(&K, &V)) -> Result<(), GateError> {
        self.visit_first(usize::MAX, visitor)
    }

    /// As [`TypedMap::visit`], for the first `most` entries of an array. Of a hash it shows all.
    ///
    /// # Errors
    /// As [`TypedMap::visit`].
    pub fn visit_first(&self, most: usize, mut visitor: impl FnMut(&K, &V)) -> Result<(), GateError> {
        let array = self.handle.map_type() == MapType::Array;
        let mut seen = 0;
        // Not libbpf-rs's iterator: it takes a batch that is not full for the last one, and of a
        // hash the kernel hands out whole buckets, so that nearly none is full.
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let mut batch = BATCH;
        // where the kernel goes on: a number, or a key
        let (mut from, mut next) = (vec![0_u8; size_of::<K>().max(8)], vec![0_u8; size_of::<K>().max(8)]);
        let mut begun = false;
        loop {
            if array {
                batch = batch.min(most.saturating_sub(seen));
            }
            if batch == 0 {
                return Ok(());
            }
            keys.resize(batch, K::default());
            values.resize(batch, V::default());
            let mut count = batch as u32;
            let start = if begun { from.as_mut_ptr().cast() } else { std::ptr::null_mut() };
            // SAFETY: keys and values are plain, have room for `count` of each, and the positions
            // for a key or a number. All outlive the call, and there are no options.
            let result = unsafe {
                libbpf_sys::bpf_map_lookup_batch(
                    self.handle.as_fd().as_raw_fd(),
                    start,
                    next.as_mut_ptr().cast(),
                    keys.as_mut_ptr().cast(),
                    values.as_mut_ptr().cast(),
                    &raw mut count,
                    std::ptr::null(),
                )
            };
            match Errno::from_raw(-result) {
                // a bucket that is larger than the room
                Errno::ENOSPC if batch < MOST_AT_ONCE => {
                    batch *= 2;
                    continue;
                }
                Errno::EINTR => continue,
                _ if result == 0 => {}
                Errno::ENOENT => {}
                errno => {
                    let what = format!("could not read the table `{}`", self.name);
                    return Err(GateError::Kernelside { what, errno });
                }
            }
            let count = (count as usize).min(batch);
            keys[..count].iter().zip(&values[..count]).for_each(|(key, value)| visitor(key, value));
            seen += count;
            if result != 0 {
                return Ok(());
            }
            begun = true;
            std::mem::swap(&mut from, &mut next);
        }
    }

    /// The values of all CPUs, for per-CPU maps. Empty: the key is not there.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn get_per_cpu(&self, key: &K) -> Result<Vec<V>, GateError> {
        let values = self
            .handle
            .lookup_percpu(bytes_of(key), MapFlags::ANY)
            .map_err(|error| self.failed("read", &error))?
            .unwrap_or_default();
        Ok(values.iter().filter_map(|value| from_bytes(value)).collect())
    }

    /// The map itself, for what has no type.
    pub fn handle(&self) -> &MapHandle {
        &self.handle
    }

    pub(super) fn into_handle(self) -> MapHandle {
        self.handle
    }

    fn failed(&self, verb: &str, error: &libbpf_rs::Error) -> GateError {
        GateError::from_libbpf(format!("could not {verb} the table `{}`", self.name), error)
    }
}

/// `memlock` of a map's fdinfo: bytes of kernel memory.
pub(super) fn memory_bytes(map: BorrowedFd<'_>) -> u64 {
    fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))
        .ok()
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok()))
        .unwrap_or(0)
}

fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: `T` is plain and without padding, so all its bytes are initialised.
    unsafe { plain::as_bytes(value) }
}

fn from_bytes<T: Plain + Default>(bytes: &[u8]) -> Option<T> {
    let mut value = T::default();
    plain::copy_from_bytes(&mut value, bytes).ok()?;
    Some(value)
}
