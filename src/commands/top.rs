//! `portcullis top`
pub fn run(_interface: &str) -> anyhow::Result<super::Exit> {
    Ok(super::Exit::Done)
}
