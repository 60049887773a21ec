//! Tables and counts for people.

/// Lines of cells, each column as wide as its widest cell; no newline at the end.
pub(super) fn columns<const N: usize>(titles: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut all = vec![titles.map(str::to_owned)];
    all.extend(rows);
    let mut widths = [0; N];
    for row in &all {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        // Widths of a format are 16 bits, and nothing here says how long a name is.
        let cells = row.iter().zip(widths).map(|(cell, width)| {
            cell.clone() + &" ".repeat(width.saturating_sub(cell.chars().count()))
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// How many of something: "1 rule", "2 rules".
pub(crate) fn counted(count: usize, one: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} {one}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let rows = vec![["1".to_owned(), "alice".to_owned()], ["20".to_owned(), "b".to_owned()]];
        assert_eq!(columns(["ID", "USER"], rows), "ID  USER\n1   alice\n20  b");
    }
}
