//! Comma-separated values with quoted fields (RFC 4180), as far as a vectors file needs them.

use super::{COLUMNS, FileError, ROWS_MAX};

/// One row's fields.
pub(super) type Row = [String; COLUMNS.len()];

/// Splits a text into rows. Empty lines between rows are skipped.
pub(super) fn rows(text: &str) -> Result<Vec<Row>, FileError> {
    let mut rows = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix('\n')) {
            rest = after;
            line += 1;
            continue;
        }
        if rows.len() > ROWS_MAX {
            return Err(FileError::TooManyRows);
        }
        let (row, after) = row(rest).ok_or(FileError::Row { line })?;
        line += rest[..rest.len() - after.len()].matches('\n').count();
        rows.push(row);
        rest = after;
    }
    Ok(rows)
}

/// The first row of `text` and what follows its line end.
fn row(text: &str) -> Option<(Row, &str)> {
    let mut fields = Vec::with_capacity(COLUMNS.len());
    let mut rest = text;
    loop {
        let (field, after) = field(rest)?;
        fields.push(field);
        if fields.len() > COLUMNS.len() {
            return None;
        }
        if let Some(after) = after.strip_prefix(',') {
            rest = after;
            continue;
        }
        let after = after.strip_prefix('\r').unwrap_or(after);
        let after = if after.is_empty() { after } else { after.strip_prefix('\n')? };
        return Some((fields.try_into().ok()?, after));
    }
}

/// The first field of `text` and what follows it: a comma, a line end or nothing.
fn field(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find([',', '\r', '\n']).unwrap_or(text.len());
        let (field, after) = text.split_at(end);
        return (!field.contains('"')).then(|| (field.to_owned(), after));
    };
    let mut field = String::new();
    loop {
        let (piece, after) = rest.split_once('"')?;
        field.push_str(piece);
        match after.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return Some((field, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_fields_keep_commas_quotes_and_lines() {
        let text = "a,\"{\"\"P\"\":1}\",\"x,y\",,\"two\nlines\",,,,last\r\n\nb,1,2,3,4,5,6,7,8";
        let rows = rows(text).unwrap();
        assert_eq!(rows[0], ["a", "{\"P\":1}", "x,y", "", "two\nlines", "", "", "", "last"]);
        assert_eq!(rows[1], ["b", "1", "2", "3", "4", "5", "6", "7", "8"]);
    }

    #[test]
    fn a_broken_row_is_named_by_its_line() {
        let good = "1,2,3,4,5,6,7,8,9\n";
        for bad in
            ["1,2,3", "1,2,3,4,5,6,7,8,9,10", "\"1,2,3,4,5,6,7,8,9", "\"1\"x,2,3,4,5,6,7,8,9"]
        {
            assert_eq!(
                rows(&format!("{good}{good}{bad}")),
                Err(FileError::Row { line: 3 }),
                "{bad}"
            );
        }
    }
}
