//! One record of a CSV file by itself: its header.

use super::{
    WireError,
    copy_in::{CopySettings, Style},
    copy_scan::{Field, RecordScanner, Scan, split_csv},
    decode::utf8,
};
use tidemark_planner::statement::CopyOptions;

/// The fields of the record that `buffer` begins with, NULL as `None`; `None`: it does not end there. With `last`, the buffer's end is
/// the file's; of nothing there are no fields.
pub fn first_csv_record(
    buffer: &[u8],
    last: bool,
    options: &CopyOptions,
) -> Result<Option<Vec<Option<String>>>, WireError> {
    let CopySettings { style, delimiter, null, .. } = CopySettings::of(options)?;
    let Style::Csv { quote, escape } = style else {
        return Err(WireError::new("22023", "only CSV has a header of names"));
    };
    if last && buffer.is_empty() {
        return Ok(Some(vec![]));
    }
    let mut scanner = RecordScanner::new(Some((quote, escape)));
    let Scan::Record { len, .. } = scanner.next(buffer, last)? else { return Ok(None) };
    let record = &buffer[..len];
    let text = utf8(record)?;
    let (mut fields, mut scratch) = (vec![], vec![]);
    split_csv(record, delimiter, quote, escape, null.as_bytes(), &mut fields, &mut scratch)?;
    let value = |field: &Field| match *field {
        Field::Null => Ok(None),
        Field::Raw(from, to) => Ok(Some(text.get(from..to).unwrap_or_default().to_string())),
        Field::Unescaped(from, to) => utf8(&scratch[from..to]).map(|text| Some(text.to_string())),
    };
    fields.iter().map(value).collect::<Result<Vec<_>, WireError>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_planner::statement::CopyFormat;

    #[test]
    fn a_header_ends_where_its_record_does() {
        let options = CopyOptions { delimiter: Some(b';'), ..CopyOptions::of(CopyFormat::Csv) };
        let read =
            |text: &str, last: bool| first_csv_record(text.as_bytes(), last, &options).map_err(|error| error.sqlstate);
        let names = |names: &[&str]| Ok(Some(names.iter().map(|name| Some(name.to_string())).collect()));
        assert_eq!(read("id;\"a \"\"b\"\"\nc\";x\r\n1;2", false), names(&["id", "a \"b\"\nc", "x"]));
        assert_eq!(read("id;\"a", false), Ok(None));
        assert_eq!(read("id;x", false), Ok(None));
        assert_eq!(read("id;x", true), names(&["id", "x"]));
        assert_eq!(read("id;;x\n", true), Ok(Some(vec![Some("id".into()), None, Some("x".into())])));
        assert_eq!(read("", true), Ok(Some(vec![])));
        assert_eq!(read("id;\"x\n", true), Err("22P04"));
    }
}
