//! Values written as Python writes them, since templates are written for Python's Jinja.
//!
//! In: a template's values. Out: what `json.dumps` and `str` make of them, within a length.
//! Source: CPython's `json.encoder` and `float.__repr__`; `tojson` in transformers' `chat_template_utils.py`.

use std::fmt::Write;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Deepest nesting that is written: above any schema's, and no danger to the stack.
const MAX_DEPTH: usize = 128;
/// Longest text one value may become, in bytes.
const MAX_BYTES: usize = 16 << 20;

/// How `json.dumps` is asked to write.
struct Json {
    item_separator: String,
    key_separator: String,
    indent: Option<usize>,
    is_ascii: bool,
    is_sorted: bool,
}

/// The filter `tojson` as transformers has it: Python's JSON, without the escapes HTML needs.
pub(super) fn tojson(value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let style = Json {
        item_separator: if indent.is_some() { "," } else { ", " }.to_owned(),
        key_separator: ": ".to_owned(),
        indent,
        is_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        is_sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    let style = match separators.as_deref() {
        Some([item, key]) => Json { item_separator: item.clone(), key_separator: key.clone(), ..style },
        _ => style,
    };
    options.assert_all_used()?;
    let mut out = String::new();
    style.write(&mut out, &value, 0)?;
    Ok(Value::from_safe_string(out))
}

impl Json {
    fn write(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        check(out, depth)?;
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value)),
            ValueKind::String => self.string(out, value.as_str().unwrap_or_default()),
            ValueKind::Map => self.map(out, value, depth)?,
            ValueKind::Seq | ValueKind::Iterable => self.list(out, value, depth)?,
            kind => return Err(invalid(format!("{kind} is not JSON serializable"))),
        }
        Ok(())
    }

    fn map(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.is_sorted {
            keys.sort();
        }
        out.push('{');
        for (idx, key) in keys.iter().enumerate() {
            self.begin_item(out, idx, depth + 1);
            match key.as_str() {
                Some(key) => self.string(out, key),
                None => {
                    let mut text = String::new();
                    self.write(&mut text, key, depth + 1)?;
                    self.string(out, &text);
                }
            }
            out.push_str(&self.key_separator);
            self.write(out, &value.get_item(key)?, depth + 1)?;
        }
        self.end_items(out, keys.len(), depth);
        out.push('}');
        Ok(())
    }

    fn list(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        let mut n_items = 0;
        out.push('[');
        for item in value.try_iter()? {
            self.begin_item(out, n_items, depth + 1);
            self.write(out, &item, depth + 1)?;
            n_items += 1;
        }
        self.end_items(out, n_items, depth);
        out.push(']');
        Ok(())
    }

    fn begin_item(&self, out: &mut String, idx: usize, depth: usize) {
        if idx > 0 {
            out.push_str(&self.item_separator);
        }
        self.new_line(out, depth);
    }

    fn end_items(&self, out: &mut String, n_items: usize, depth: usize) {
        if n_items > 0 {
            self.new_line(out, depth);
        }
    }

    fn new_line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent.min(64) * depth));
        }
    }

    fn string(&self, out: &mut String, text: &str) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                _ if c < ' ' || (self.is_ascii && c > '~') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                _ => out.push(c),
            }
        }
        out.push('"');
    }
}

/// Returns `str(value)` where Jinja in Rust would write something else; `None` for strings and the like.
pub(super) fn str(value: &Value) -> Result<Option<String>, Error> {
    match value.kind() {
        ValueKind::String | ValueKind::Undefined | ValueKind::Plain => Ok(None),
        _ => {
            let mut out = String::new();
            repr(&mut out, value, 0)?;
            Ok(Some(out))
        }
    }
}

fn repr(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    check(out, depth)?;
    match value.kind() {
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String => repr_string(out, value.as_str().unwrap_or_default()),
        ValueKind::Map => {
            out.push('{');
            for (idx, key) in value.try_iter()?.enumerate() {
                out.push_str(if idx > 0 { ", " } else { "" });
                repr(out, &key, depth + 1)?;
                out.push_str(": ");
                repr(out, &value.get_item(&key)?, depth + 1)?;
            }
            out.push('}');
        }
        ValueKind::Seq => {
            out.push('[');
            for (idx, item) in value.try_iter()?.enumerate() {
                out.push_str(if idx > 0 { ", " } else { "" });
                repr(out, &item, depth + 1)?;
            }
            out.push(']');
        }
        _ => {
            let _ = write!(out, "{value}");
        }
    }
    Ok(())
}

fn repr_string(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            _ if c == quote => out.extend(['\\', c]),
            _ if c.is_ascii_control() => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            _ => out.push(c),
        }
    }
    out.push(quote);
}

/// Returns Python's shortest form of a number: exponents below -4 and from 16 on.
fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let Ok(number) = f64::try_from(value.clone()) else {
        return value.to_string();
    };
    if !number.is_finite() {
        let name = if number.is_nan() { "NaN" } else { "Infinity" };
        return format!("{}{name}", if number < 0.0 { "-" } else { "" });
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if number != 0.0 && !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => format!("{number:?}"),
    }
}

fn check(out: &str, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH || out.len() > MAX_BYTES {
        return Err(invalid("the value is too large to write".to_owned()));
    }
    Ok(())
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(json: &str) -> Value {
        Value::from_serialize(serde_json::from_str::<serde_json::Value>(json).expect("JSON"))
    }

    /// Each expectation is what Python 3.11 prints.
    #[test]
    fn values_are_written_as_python_writes_them() {
        let check = |json: &str, dumps: &str, text: &str| {
            let none = Kwargs::from_iter::<[(&str, Value); 0]>([]);
            assert_eq!(tojson(value(json), none).expect("writes").as_str(), Some(dumps), "{json}");
            assert_eq!(str(&value(json)).expect("writes").as_deref(), Some(text), "{json}");
        };
        check(
            r#"{"b":1,"a":[true,null,"x"]}"#,
            r#"{"b": 1, "a": [true, null, "x"]}"#,
            "{'b': 1, 'a': [True, None, 'x']}",
        );
        check(
            "[1.0,0.1,1e16,1.5e-7,-0.0,123456789012345680.0,0.0001,0.00001]",
            "[1.0, 0.1, 1e+16, 1.5e-07, -0.0, 1.2345678901234568e+17, 0.0001, 1e-05]",
            "[1.0, 0.1, 1e+16, 1.5e-07, -0.0, 1.2345678901234568e+17, 0.0001, 1e-05]",
        );
        check("18446744073709551615", "18446744073709551615", "18446744073709551615");
        check(
            r#"["<&>'\"\\\n\u0001é😀\u007f"]"#,
            "[\"<&>'\\\"\\\\\\n\\u0001é😀\u{7f}\"]",
            "['<&>\\'\"\\\\\\n\\x01é😀\\x7f']",
        );
        check("[[],{}]", "[[], {}]", "[[], {}]");
    }

    #[test]
    fn options_are_pythons() {
        let check = |options: Kwargs, expect: &str| {
            let written = tojson(value(r#"{"b":["é",{}],"a":{"c":1}}"#), options).expect("writes");
            assert_eq!(written.as_str(), Some(expect));
        };
        check(
            Kwargs::from_iter([("indent", Value::from(2))]),
            "{\n  \"b\": [\n    \"é\",\n    {}\n  ],\n  \"a\": {\n    \"c\": 1\n  }\n}",
        );
        check(
            Kwargs::from_iter([("sort_keys", Value::from(true)), ("ensure_ascii", Value::from(true))]),
            r#"{"a": {"c": 1}, "b": ["\u00e9", {}]}"#,
        );
        check(
            Kwargs::from_iter([("separators", Value::from(vec![",", ":"]))]),
            r#"{"b":["é",{}],"a":{"c":1}}"#,
        );
        assert!(tojson(Value::UNDEFINED, Kwargs::from_iter::<[(&str, Value); 0]>([])).is_err());
        assert!(tojson(Value::from(1), Kwargs::from_iter([("nonsense", Value::from(1))])).is_err());
    }

    #[test]
    fn a_value_that_would_grow_without_end_is_refused() {
        let deep = (0..MAX_DEPTH + 2).fold(Value::from(1), |inner, _| Value::from(vec![inner]));
        let wide = (0..40).fold(Value::from("x"), |inner, _| Value::from(vec![inner.clone(), inner]));
        for value in [deep, wide] {
            assert!(tojson(value.clone(), Kwargs::from_iter::<[(&str, Value); 0]>([])).is_err());
            assert!(str(&value).is_err());
        }
    }
}
