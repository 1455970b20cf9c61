//! Lines chosen by what follows the cursor, with the real models.

use complete::{Options, Request, Trigger};
use engine::{CancelToken, Engine};
use text::{ByteOffset, Document};

use super::{default_model, engine};

/// What is shown at `$0` when so many other lines are written to choose from.
fn shown(engine: &Engine, marked: &str, trigger: Trigger, n_others: usize) -> String {
    let offset = ByteOffset(marked.find("$0").expect("a cursor"));
    let document = Document::open(&marked.replace("$0", ""), 1).snapshot();
    let request = Request { document: &document, offset, trigger, tree: None, context: None };
    let time = std::time::Duration::from_secs(60);
    let options = Options {
        n_others,
        n_others_invoked: n_others,
        answer_time: time,
        answer_time_invoked: time,
        ..Options::default()
    };
    let completion = complete::complete(engine, &request, &options, "", &mut |_| true, &CancelToken::new())
        .expect("an answer");
    completion.result.expect("ghost text").insert
}

#[test]
fn of_a_few_lines_the_one_is_shown_that_makes_what_follows_likely() {
    let engine = default_model();
    let check = |marked: &str, likeliest: &str, chosen: &str| {
        assert_eq!(shown(&engine, marked, Trigger::Invoked, 0), likeliest, "{marked:?}");
        for n_others in [3, 7] {
            assert_eq!(
                shown(&engine, marked, Trigger::Invoked, n_others),
                chosen,
                "{marked:?} of {n_others} others"
            );
        }
    };
    let sum = "def f(xs):\n    total = 0\n    $0\n        total += item\n    return total\n";
    check(sum, "for x in xs:", "for item in xs:");
    check("def area(w, h):\n    $0\n    return result\n", "return w * h", "area = w * h");
}

#[test]
fn a_model_that_fills_in_has_its_lines_judged_by_their_end_and_by_hand_by_what_follows_too() {
    let hint = "`agent models pull smollm2-135m-fim` fetches it, `agent models path` says where it is";
    let engine = engine("TANDEM_TEST_FIM_MODEL", hint);
    let check = |marked: &str, [likeliest, to_its_end, by_hand]: [&str; 3]| {
        assert_eq!(shown(&engine, marked, Trigger::Invoked, 0), likeliest, "{marked:?}");
        assert_eq!(shown(&engine, marked, Trigger::Automatic, 7), to_its_end, "{marked:?}");
        assert_eq!(shown(&engine, marked, Trigger::Invoked, 7), by_hand, "{marked:?}");
    };
    let longest = "fn longest(lines: &[String]) -> usize {\n    let mut most = 0;\n    $0\n        \
                   most = most.max(line.len());\n    }\n    most\n}\n";
    check(longest, ["lines.for_each(|line| {", "for line in lines {", "for line in lines {"]);
    let count = "def count(words):\n    counts = {}\n    for word in words:\n        $0\n            \
                 counts[word] = 0\n        counts[word] += 1\n    return counts\n";
    check(count, ["if word in counts:", "if word in counts:", "if word not in counts:"]);
}
