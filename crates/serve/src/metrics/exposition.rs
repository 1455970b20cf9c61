//! Prometheus' text form, a family of metrics at a time.
//!
//! In: names without their prefix, help, values. Out: text.
//! Source: Prometheus, "Exposition formats", text-based format 0.0.4.

use std::fmt::Write as _;

use engine::Histogram;

/// Text that grows by a family at a time.
#[derive(Debug, Default)]
pub(super) struct Exposition(String);

/// A label's name and value; the values are ours and need no escapes.
type Label<'a> = (&'a str, &'a str);

impl Exposition {
    pub(super) fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, help, "counter");
        self.sample(name, "", &[], value);
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, help, "gauge");
        self.sample(name, "", &[], value);
    }

    /// Adds counters that differ in one label.
    pub(super) fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, f64)]) {
        self.labelled("counter", name, help, label, values);
    }

    /// Adds gauges that differ in one label.
    pub(super) fn gauges(&mut self, name: &str, help: &str, label: &str, values: &[(&str, f64)]) {
        self.labelled("gauge", name, help, label, values);
    }

    /// Adds histograms that differ in one label, or one without.
    pub(super) fn histograms(&mut self, name: &str, help: &str, all: &[(Option<Label<'_>>, &Histogram)]) {
        self.head(name, help, "histogram");
        for (label, histogram) in all {
            let own: Vec<Label<'_>> = label.iter().copied().collect();
            // The sum first: a value that comes meanwhile is then in the count at most.
            let sum = histogram.sum();
            let mut n = 0;
            for (bound, n_at_most) in histogram.at_most() {
                let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
                let labels = [&own[..], &[("le", bound.as_str())]].concat();
                self.sample(name, "_bucket", &labels, n_at_most as f64);
                n = n_at_most;
            }
            self.sample(name, "_sum", &own, sum);
            self.sample(name, "_count", &own, n as f64);
        }
    }

    pub(super) fn finish(self) -> String {
        self.0
    }

    fn labelled(&mut self, kind: &str, name: &str, help: &str, label: &str, values: &[(&str, f64)]) {
        self.head(name, help, kind);
        for (value_of_label, value) in values {
            self.sample(name, "", &[(label, value_of_label)], *value);
        }
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = write!(self.0, "# HELP tandem_{name} {help}\n# TYPE tandem_{name} {kind}\n");
    }

    fn sample(&mut self, name: &str, suffix: &str, labels: &[Label<'_>], value: f64) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "tandem_{name}{suffix}{labels} {value}");
    }
}
