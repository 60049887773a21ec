//! A table for people.

use unicode_width::UnicodeWidthStr;

/// Lines of cells below a line of titles, each column as wide as its widest cell, but for the last: it
/// may be as long as it likes.
pub(crate) fn table<const N: usize>(titles: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut all = vec![titles.map(str::to_owned)];
    all.extend(rows);
    let mut widths = [0; N];
    for row in &all {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| {
            let blanks = width.saturating_sub(cell.width());
            // Widths of a format are 16 bits, and an agent may send what it likes.
            cell.clone() + &" ".repeat(blanks)
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let row = |id: &str, name: &str, what: &str| [id, name, what].map(str::to_owned);
        let rows = vec![row("1", "alice", "x"), row("20", "日本", "a long text")];
        let shown = table(["ID", "USER", "WHAT"], rows);
        assert_eq!(shown, "ID  USER   WHAT\n1   alice  x\n20  日本   a long text\n");
    }

    #[test]
    fn a_cell_may_be_as_wide_as_it_likes() {
        let rows = vec![["x".repeat(70_000), "y".to_owned()], ["z".to_owned(), "y".to_owned()]];
        assert_eq!(table(["A", "B"], rows).lines().map(str::len).max(), Some(70_003));
    }
}
