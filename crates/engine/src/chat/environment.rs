//! The Jinja that templates of Hugging Face's models are written for.
//!
//! In: a prepared source; then variables. Out: the rendered text, or why there is none.
//! Never: renders without a bound on time, depth and length.
//! Source: `_compile_jinja_template` in transformers' `chat_template_utils.py`.

use std::error::Error as _;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, ErrorKind, Output, State};

use super::ChatError as Error;
use super::python;

const NAME: &str = "chat_template";
/// Longest template that is compiled, in bytes; the longest of llama.cpp's collection has 17 KB.
const MAX_SOURCE_BYTES: usize = 1 << 20;
/// Instructions any render may take; all of `tests/templates` over all of `tests/fixtures/chat.json` take under 15,000.
const FUEL: u64 = 1_000_000;
/// Further instructions for each byte of the conversation.
const FUEL_PER_BYTE: u64 = 50;
/// Longest rendered text in bytes, and what each byte of the conversation adds.
const MAX_BYTES: usize = 4 << 20;
const MAX_BYTES_PER_BYTE: usize = 16;
/// Deepest recursion of macros and recursive loops.
const MAX_RECURSION: usize = 100;

/// A compiled template.
pub(super) struct Compiled {
    environment: Environment<'static>,
}

impl Compiled {
    pub(super) fn new(source: String) -> Result<Self, Error> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(Error::Limit("its source is too long"));
        }
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_recursion_limit(MAX_RECURSION);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(write_value);
        environment.add_filter("tojson", python::tojson);
        environment.add_filter("string", |value: Value| -> Result<Value, minijinja::Error> {
            Ok(python::str(&value)?.map_or_else(|| Value::from(value.to_string()), Value::from))
        });
        environment.add_test("iterable", |value: Value| is_iterable(&value));
        environment.add_test("sequence", |value: Value| is_sequence(&value));
        environment.add_function("raise_exception", raise);
        environment
            .add_template_owned(NAME, source)
            .map_err(|error| Error::Syntax { line: error.line().unwrap_or(0), message: message(&error) })?;
        Ok(Self { environment })
    }

    /// Renders with `variables`, which came from `n_bytes` of conversation.
    pub(super) fn render(&self, variables: Value, n_bytes: usize) -> Result<String, Error> {
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(FUEL + FUEL_PER_BYTE * n_bytes as u64));
        let mut out = Bounded { bytes: Vec::new(), max_bytes: MAX_BYTES + MAX_BYTES_PER_BYTE * n_bytes };
        // minijinja 2.24 panics on `''[::-1]`; no template may cost more than its own render.
        let rendered = catch_unwind(AssertUnwindSafe(|| {
            environment.get_template(NAME)?.render_captured_to(variables, &mut out).map(|_| ())
        }));
        match rendered {
            Ok(result) => result.map_err(|error| failure(&error))?,
            Err(_) => {
                let message = "it cannot be rendered by this program".to_owned();
                return Err(Error::Failed { line: 0, message });
            }
        }
        String::from_utf8(out.bytes)
            .map_err(|_| Error::Failed { line: 0, message: "it writes no UTF-8".to_owned() })
    }
}

/// Text that refuses to grow beyond a length.
struct Bounded {
    bytes: Vec<u8>,
    max_bytes: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.max_bytes {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_value(out: &mut Output, state: &State, value: &Value) -> Result<(), minijinja::Error> {
    match python::str(value)? {
        Some(text) => out.write_str(&text).map_err(minijinja::Error::from),
        None => minijinja::escape_formatter(out, state, value),
    }
}

/// In Python a text and a map are iterable, and null is not.
fn is_iterable(value: &Value) -> bool {
    match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::Number => false,
        ValueKind::String | ValueKind::Undefined => true,
        _ => value.try_iter().is_ok(),
    }
}

/// In Python a text and a map are sequences to Jinja: they have a length and items.
fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Undefined)
}

/// What a template says when it refuses a conversation.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise(message: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, "raised").with_source(Raised(message)))
}

fn failure(error: &minijinja::Error) -> Error {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(raised) = cause.downcast_ref::<Raised>() {
            return Error::Refused(raised.0.clone());
        }
        source = cause.source();
    }
    match error.kind() {
        ErrorKind::OutOfFuel => Error::Limit("it takes too many steps"),
        ErrorKind::WriteFailure => Error::Limit("it writes too much"),
        _ => Error::Failed { line: error.line().unwrap_or(0), message: message(error) },
    }
}

fn message(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String, Error> {
        let variables = serde_json::json!({"s": "a'b<c>", "d": {"z": 1, "a": [true, null, 1.0]}, "n": null});
        Compiled::new(source.to_owned())?.render(Value::from_serialize(variables), 0)
    }

    /// Each expectation is what Jinja 3.1 renders, set up as transformers does.
    #[test]
    fn what_templates_use_works_as_in_python() {
        let check = |source: &str, expect: &str| {
            assert_eq!(render(source).expect("renders"), expect, "{source}");
        };
        check("  {% if true %}\n  x\n  {% endif %}\ny\n", "  x\ny");
        check(
            "{{ d | tojson }}{{ d|tojson(indent=1) }}",
            "{\"z\": 1, \"a\": [true, null, 1.0]}{\n \"z\": 1,\n \"a\": [\n  true,\n  null,\n  1.0\n ]\n}",
        );
        check(
            "{{ s }}{{ s|tojson|safe }}{{ n }}{{ true }}{{ d }}{{ 2.0 }}",
            "a'b<c>\"a'b<c>\"NoneTrue{'z': 1, 'a': [True, None, 1.0]}2.0",
        );
        check(
            "{% set ns = namespace(x=1) %}{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}",
            "5",
        );
        check("{% for m in [1,2,3] %}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}", "2;13;2;");
        check(
            "{{ 'a-b'.split('-')[-1].strip().upper() }}{{ ' x'.lstrip() }}{{ 'abc'.startswith('ab') }}",
            "BxTrue",
        );
        check("{{ [1,2,3][::-1] | join(',') }}{{ 'abc'[1:] }}{{ 'abc'[:-1] }}", "3,2,1bcab");
        check(
            "{% for k, v in d.items() %}{{ k }}{% endfor %}{% for k in d|items %}{{ k[0] }}{% endfor %}",
            "zaza",
        );
        check(
            "{{ undefined_name }}{{ d.missing is defined }}{{ d is mapping }}{{ s is string }}{{ n is none }}",
            "FalseTrueTrueTrue",
        );
        check("{% macro m(x) %}[{{ x }}]{% endmacro %}{{ m(1) }}{{ (false or 'y') ~ 1 }}", "[1]y1");
        check("{{ true | string }}{{ d.a | string }}{{ none|string }}", "True[True, None, 1.0]None");
        check(
            "{{ n is iterable }}{{ 1 is iterable }}{{ d is iterable }}{{ s is sequence }}{{ d is sequence }}",
            "FalseFalseTrueTrueTrue",
        );
        check("{{ 'x' if s is iterable else 'y' }}{{ s|length }}{{ s|trim }}", "x6a'b<c>");
    }

    #[test]
    fn a_refusal_is_told_from_a_failure_and_both_say_where() {
        let message = |source: &str| render(source).expect_err("must fail").to_string();
        assert_eq!(
            message("{{ raise_exception('no ' ~ s) }}"),
            "the model's chat template refuses the conversation: no a'b<c>"
        );
        assert!(
            message("{% macro m() %}{{ raise_exception('deep') }}{% endmacro %}{{ m() }}")
                .ends_with(": deep")
        );
        assert!(
            message("a\nb\n{{ 1 + 'x' }}").contains("failed at line 3"),
            "{}",
            message("a\nb\n{{ 1 + 'x' }}")
        );
        assert!(message("a\n{% if %}").contains("malformed at line 2"), "{}", message("a\n{% if %}"));
        assert!(message("{{ 'open").contains("malformed at line 1"));
        assert!(message("{{ nothing.at.all }}").contains("failed at line 1"));
        assert!(message("{% include 'x' %}").contains("failed at line 1"));
    }

    #[test]
    fn a_template_without_end_stops_at_its_limits() {
        let check = |source: &str, expect: &str| {
            let error = render(source).expect_err("must stop");
            assert!(error.to_string().contains(expect), "{source}: {error}");
        };
        check(
            "{% for i in range(99999) %}{% for j in range(99999) %}{% set x = j %}{% endfor %}{% endfor %}",
            "steps",
        );
        check("{% for i in range(99999) %}{{ 'x' * 100000 }}{% endfor %}", "too much");
        check("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "failed");
        check("{{ range(1000000000) | list }}", "failed");
        check("{{ ''[::-1] }}", "failed");
        check("{{ 'x' * 1000000000 }}", "failed");
        check(&"{".repeat(MAX_SOURCE_BYTES + 1), "too long");
        check(&format!("{{{{ {}1{} }}}}", "(".repeat(9_999), ")".repeat(9_999)), "malformed");
    }
}
