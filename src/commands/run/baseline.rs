//! What was reported so far, kept on disk so that the next daemon does not
//! report it again. Losing it means a repeated report, never a missed one.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::path::PathBuf;

use log::warn;

use crate::drops::Baseline;
use crate::gate::Place;

fn path(place: &Place) -> PathBuf {
    place.history().join("reported.json")
}

/// The last daemon's, or an empty one.
pub fn read(place: &Place) -> Baseline {
    let path = path(place);
    let Ok(file) = File::open(&path) else {
        return Baseline::default();
    };
    serde_json::from_reader(BufReader::new(file)).unwrap_or_else(|error| {
        warn!("{} is damaged ({error}); what it had is reported once more", path.display());
        Baseline::default()
    })
}

/// Replaces it in one step.
pub fn write(place: &Place, baseline: &Baseline) {
    let path = path(place);
    let fresh = path.with_added_extension("new");
    let written = fs::create_dir_all(place.history()).and_then(|()| {
        let mut out = BufWriter::new(File::create(&fresh)?);
        serde_json::to_writer(&mut out, baseline)?;
        out.flush()?;
        fs::rename(&fresh, &path)
    });
    if let Err(error) = written {
        warn!("could not write {} ({error}); a restart will report some drops once more", path.display());
    }
}
