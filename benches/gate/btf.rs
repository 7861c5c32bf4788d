//! Structs and enums of a program, found by name in the BTF of its object.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use libbpf_rs::btf::types::{Enum, MemberAttr, Struct};
use libbpf_rs::btf::{Btf, HasSize as _};

/// The bytes of one struct. Fields are found by name in the object's BTF, so no layout is written down twice.
#[derive(Clone)]
pub struct Record {
    offsets: HashMap<String, usize>,
    pub bytes: Vec<u8>,
}

impl Record {
    pub fn of(object: &Path, name: &str) -> Result<Record> {
        let btf = Btf::from_path(object)?;
        let kind = btf.type_by_name::<Struct<'_>>(name).with_context(|| format!("no struct {name}"))?;
        let mut offsets = HashMap::new();
        for member in kind.iter() {
            let (Some(name), MemberAttr::Normal { offset }) = (member.name, member.attr) else { continue };
            offsets.insert(name.to_string_lossy().into_owned(), offset as usize / 8);
        }
        let bytes = vec![0; kind.size()];
        Ok(Record { offsets, bytes })
    }

    pub fn set(&mut self, field: &str, value: &[u8]) {
        let at = self.offsets[field];
        self.bytes[at..at + value.len()].copy_from_slice(value);
    }

    pub fn read_u64(&self, field: &str) -> u64 {
        let at = self.offsets[field];
        let mut word = [0; 8];
        word.copy_from_slice(&self.bytes[at..at + 8]);
        u64::from_ne_bytes(word)
    }
}

/// The values of an enum, by name.
pub fn read_enum(object: &Path, name: &str) -> Result<HashMap<String, u32>> {
    let btf = Btf::from_path(object)?;
    let list = btf.type_by_name::<Enum<'_>>(name).with_context(|| format!("no enum {name}"))?;
    let value = |value: libbpf_rs::btf::types::EnumMember<'_>| {
        Some((value.name?.to_string_lossy().into_owned(), u32::try_from(value.value).ok()?))
    };
    Ok(list.iter().filter_map(value).collect())
}
