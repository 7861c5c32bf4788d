//! A map of maps: each of its slots holds an inner map of one policy generation.

use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, libbpf_sys};
use plain::Plain;

use super::error::GateError;
use super::fault;
use super::typed_map::TypedMap;

/// The kind of the inner maps, as `bpf/maps.h` has it.
pub trait InnerKind {
    /// Their type.
    const TYPE: MapType;
    /// Their flags.
    const FLAGS: u32;
}

/// Hashes.
pub struct Hash;

/// Tries: the longest prefix wins.
pub struct Trie;

/// Arrays, each as long as its content.
pub struct Array;

impl InnerKind for Hash {
    const TYPE: MapType = MapType::Hash;
    const FLAGS: u32 = 0;
}

impl InnerKind for Trie {
    const TYPE: MapType = MapType::LpmTrie;
    const FLAGS: u32 = libbpf_sys::BPF_F_NO_PREALLOC;
}

impl InnerKind for Array {
    const TYPE: MapType = MapType::Array;
    const FLAGS: u32 = libbpf_sys::BPF_F_INNER_MAP;
}

/// A map of maps of the kind `T`, whose keys are `K` and whose values are `V`.
pub struct OuterMap<T, K, V> {
    handle: MapHandle,
    name: &'static str,
    types: PhantomData<(T, K, V)>,
}

impl<T: InnerKind, K: Plain + Copy + Default, V: Plain + Copy + Default> OuterMap<T, K, V> {
    pub(super) fn new(name: &'static str, handle: MapHandle) -> Self {
        Self { handle, name, types: PhantomData }
    }

    /// Makes an inner map of these entries, and puts it nowhere yet.
    pub(super) fn create_inner(&self, entries: &[(K, V)]) -> Result<FilledSlot<'_>, GateError> {
        let inner = TypedMap::<K, V>::create(self.name, T::TYPE, T::FLAGS, entries.len())?;
        inner.put_all(entries)?;
        Ok(FilledSlot { outer: &self.handle, name: self.name, inner: inner.into_handle() })
    }

    /// The inner map of a slot.
    ///
    /// # Errors
    /// When the slot is empty, or the kernel refuses to read.
    pub fn open_inner(&self, slot: u32) -> Result<TypedMap<K, V>, GateError> {
        let failed = |error: &libbpf_rs::Error| {
            GateError::from_libbpf(format!("could not read the table `{}`", self.name), error)
        };
        let id = self
            .handle
            .lookup(&slot.to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| failed(&error))?
            .and_then(|id| id.try_into().ok())
            .map(u32::from_ne_bytes)
            .ok_or_else(|| GateError::Other {
                what: format!("could not read the table `{}`", self.name),
                why: "the slot is empty".to_owned(),
            })?;
        TypedMap::new(self.name, MapHandle::from_map_id(id).map_err(|error| failed(&error))?)
    }

    /// The outer map itself.
    pub fn handle(&self) -> &MapHandle {
        &self.handle
    }
}

/// An inner map, filled, and the outer one that it is for.
pub(super) struct FilledSlot<'m> {
    outer: &'m MapHandle,
    name: &'static str,
    inner: MapHandle,
}

impl FilledSlot<'_> {
    /// Puts the inner map into a slot. The kernel makes this wait until no program runs that might have
    /// seen the old content.
    pub(super) fn put(&self, slot: u32) -> Result<(), GateError> {
        let fd = self.inner.as_fd().as_raw_fd();
        fault::point();
        self.outer.update(&slot.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY).map_err(|error| {
            GateError::from_libbpf(format!("could not put a new table into `{}`", self.name), &error)
        })
    }
}
