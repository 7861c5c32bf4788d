//! The tables under attack: floods, and what each table does when it is full.

mod floods;
mod room;
