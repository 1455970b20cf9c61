//! Lines chosen by what follows the cursor, with the real model.

use complete::{Options, Request, Trigger};
use engine::{CancelToken, Engine, EngineOptions};
use text::{ByteOffset, Document};

/// What is shown at `$0` when so many other lines are written to choose from.
fn shown(engine: &Engine, marked: &str, n_others_invoked: usize) -> String {
    let offset = ByteOffset(marked.find("$0").expect("a cursor"));
    let document = Document::open(&marked.replace("$0", ""), 1).snapshot();
    let request =
        Request { document: &document, offset, trigger: Trigger::Invoked, tree: None, context: None };
    let options = Options { n_others_invoked, ..Options::default() };
    let completion = complete::complete(engine, &request, &options, "", &mut |_| true, &CancelToken::new())
        .expect("an answer");
    completion.result.expect("ghost text").insert
}

#[test]
fn of_a_few_lines_the_one_is_shown_that_makes_what_follows_likely() {
    let path = std::env::var_os("TANDEM_TEST_MODEL")
        .expect("TANDEM_TEST_MODEL is not set: `cargo xtask model` fetches the model and prints its path");
    let engine = Engine::load(path.as_ref(), EngineOptions::default(), &mut |_| {}).expect("the model loads");
    let check = |marked: &str, likeliest: &str, chosen: &str| {
        assert_eq!(shown(&engine, marked, 0), likeliest, "{marked:?}");
        for n_others in [3, 7] {
            assert_eq!(shown(&engine, marked, n_others), chosen, "{marked:?} of {n_others} others");
        }
    };
    let sum = "def f(xs):\n    total = 0\n    $0\n        total += item\n    return total\n";
    check(sum, "for x in xs:", "for item in xs:");
    check("def area(w, h):\n    $0\n    return result\n", "return w * h", "area = w * h");
}
