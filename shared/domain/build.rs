//! A catalogue that is wrong stops the build, with the line and the reason. It is read by the very code that reads it when
//! a function starts.
#![allow(
    dead_code,
    missing_docs,
    unused_imports,
    reason = "modules of the library, of which little is used here"
)]

#[path = "src/catalogue.rs"]
mod catalogue;
#[path = "src/invalid.rs"]
mod invalid;
#[path = "src/values.rs"]
mod values;

fn main() {
    for file in ["catalogue.toml", "src/catalogue.rs", "src/invalid.rs", "src/values.rs"] {
        println!("cargo::rerun-if-changed={file}");
    }
    if let Err(error) = catalogue::Catalogue::shipped() {
        // One line a line: cargo shows each.
        for line in format!("shared/domain/catalogue.toml: {error}").lines() {
            println!("cargo::error={line}");
        }
    }
}
