//! The programs themselves.

use crate::Result;
use crate::lab::Lab;
use crate::table::Table;
use std::fs;

pub(crate) fn measure(lab: &Lab, table: &mut Table) -> Result<()> {
    table.head("size of the programs, stripped");
    for name in ["rexec", "rexec-agent"] {
        let bytes = fs::metadata(lab.bin.join(name))?.len();
        table.value(name, format!("{:.2} MiB", bytes as f64 / (1024.0 * 1024.0)));
    }
    Ok(())
}
