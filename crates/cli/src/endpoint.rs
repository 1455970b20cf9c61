//! A model behind an endpoint, for those who give one: `agent fix --endpoint URL`.
//!
//! In: `--endpoint`, `--endpoint-model`, and the variables that stand in for them; the key from the environment alone.
//! Out: [`RemoteAuthor`].
//! Never: takes an endpoint from `tandem.toml`: a repository must not say where its reader's source and key go.

mod ghost;
mod outage;

pub(crate) use ghost::{EndpointModel, GhostEndpointArgs};
pub(crate) use outage::Patient;

use agent::author::{Answer, Author};
use agent::proposal::Model;
use clap::Args;
use engine::{CancelToken, Message, Sampling};
use remote::{ChatRequest, Client, Endpoint, Key, Limits, Stop};

use crate::failure::Failure;
use crate::model::EngineArgs;

/// Times a question is asked whose answer broke off.
const N_TRIES: usize = 3;
/// The one host that `OPENAI_API_KEY` is meant for.
const OPENAI: &str = "https://api.openai.com/";

/// What is said of an endpoint elsewhere without encryption.
const READABLE: &str =
    "\nwarning: it is http:// and not https://: others on the way can read all of it, a key too.";

/// Which endpoint, and which of its models.
#[derive(Args, Debug)]
pub(crate) struct EndpointArgs {
    /// Ask the model of an OpenAI-compatible endpoint, such as http://127.0.0.1:8080, and none of this machine; the key
    /// comes from TANDEM_ENDPOINT_KEY, and TANDEM_ENDPOINT does the same as this
    #[arg(long, value_name = "URL", conflicts_with_all = ["model", "kv", "draft_model", "in_process"])]
    endpoint: Option<String>,
    /// Model of the endpoint, if it serves several; TANDEM_ENDPOINT_MODEL does the same
    #[arg(long, value_name = "NAME")]
    endpoint_model: Option<String>,
}

impl EndpointArgs {
    /// Returns the endpoint, if one is wanted: a flag counts more than a variable, whichever model it names.
    pub(crate) fn choose(&self, engine: &EngineArgs) -> Result<Option<Endpoint>, Failure> {
        let url = match &self.endpoint {
            Some(url) => Some(url.clone()),
            None if engine.is_named() => None,
            None => variable("TANDEM_ENDPOINT")?,
        };
        match (url, &self.endpoint_model) {
            (Some(url), _) => Ok(Some(with_key(Endpoint::parse(&url)?, &variable)?)),
            (None, Some(_)) => Err(Failure::usage("--endpoint-model names a model of an endpoint")
                .hint("say which with `--endpoint URL`")),
            (None, None) => Ok(None),
        }
    }
}

/// Returns the endpoint with the key that is meant for it.
fn with_key(
    endpoint: Endpoint,
    variable: &dyn Fn(&'static str) -> Result<Option<String>, Failure>,
) -> Result<Endpoint, Failure> {
    let key = match variable("TANDEM_ENDPOINT_KEY")? {
        None if endpoint.url().starts_with(OPENAI) => variable("OPENAI_API_KEY")?,
        key => key,
    };
    Ok(match key {
        Some(key) => endpoint.with_key(Key::new(&key)?),
        None => endpoint,
    })
}

/// Returns what a variable of the environment says, if it says anything.
fn variable(name: &'static str) -> Result<Option<String>, Failure> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(Failure::usage(format!("{name} is no text"))),
    }
}

/// The model of an endpoint.
pub(crate) struct RemoteAuthor {
    client: Client,
    model: String,
}

impl RemoteAuthor {
    /// Finds out which model to ask and says where the source text will go; `None` when cancelled.
    pub(crate) fn meet(
        endpoint: Endpoint,
        args: &EndpointArgs,
        cancel: &CancelToken,
    ) -> Result<Option<Self>, Failure> {
        let named = match args.endpoint_model.clone() {
            Some(named) => Some(named),
            None => variable("TANDEM_ENDPOINT_MODEL")?,
        };
        let client = Client::new(endpoint, Limits::default());
        let Some(model) = client.choose_model(named.as_deref(), cancel)? else {
            return Ok(None);
        };
        say!("{}", where_text_goes(client.endpoint(), &model));
        Ok(Some(Self { client, model }))
    }

    /// Returns what a proposal remembers of the model.
    pub(crate) fn model(&self) -> Model {
        Model::Remote { name: self.model.clone(), endpoint: self.client.endpoint().url().to_owned() }
    }
}

fn where_text_goes(endpoint: &Endpoint, model: &str) -> String {
    let model: String = model.chars().filter(|c| !c.is_control()).collect();
    let url = endpoint.url();
    if endpoint.is_local() {
        return format!("{model} is asked at {url}, a server on this machine.");
    }
    let mut text = format!("Source text and the test's output go to {url}, where {model} is asked.");
    if endpoint.is_readable_on_the_way() {
        text.push_str(READABLE);
    }
    text
}

impl Author for RemoteAuthor {
    fn answer(
        &self,
        messages: Vec<Message>,
        sampling: Sampling,
        _original: &str,
        on_text: &mut dyn FnMut(&str) -> bool,
        cancel: &CancelToken,
    ) -> Result<Answer, agent::Error> {
        let model = self.model.as_str();
        let request = ChatRequest { model, messages: &messages, sampling, n_max_tokens: None };
        let mut n_tried = 0;
        loop {
            n_tried += 1;
            let mut text = String::new();
            let mut hear = |piece: &str| {
                text.push_str(piece);
                on_text(&text)
            };
            return match self.client.chat(&request, &mut hear, cancel) {
                Ok(answer) if answer.stop == Stop::Cancelled => Ok(Answer::Cancelled),
                Ok(answer) => Ok(Answer::Text(answer.text)),
                Err(remote::Error::TooLong { .. }) => Ok(Answer::TooLong),
                Err(remote::Error::CutOff { .. }) if n_tried < N_TRIES => continue,
                Err(error) => Err(agent::Error::Author { source: Box::new(error) }),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_given_to_the_endpoint_it_is_meant_for() {
        let check = |url: &str, own: bool, openais: bool, expected: bool| {
            let variable = |name: &'static str| {
                let is_set = match name {
                    "TANDEM_ENDPOINT_KEY" => own,
                    "OPENAI_API_KEY" => openais,
                    name => panic!("{name} holds no key"),
                };
                Ok(is_set.then(|| "sk-1".to_owned()))
            };
            let endpoint = with_key(Endpoint::parse(url).expect("sound"), &variable).expect("a key");
            assert_eq!(format!("{endpoint:?}").contains("Key"), expected, "{url}");
        };
        check("https://api.openai.com", false, true, true);
        check("https://api.openai.com/v1", true, false, true);
        check("http://api.openai.com", false, true, false);
        check("https://api.openai.com.example", false, true, false);
        check("http://127.0.0.1:8080", false, true, false);
        check("http://127.0.0.1:8080", true, false, true);
    }

    #[test]
    fn where_the_source_goes_is_said() {
        let check = |url: &str, expected: &[&str], not: &str| {
            let text = where_text_goes(&Endpoint::parse(url).expect("sound"), "m\u{1b}[2J");
            assert!(expected.iter().all(|part| text.contains(part)), "{text}");
            assert!(!text.contains(not) && !text.contains('\u{1b}'), "{text}");
        };
        check("http://[::1]:8080", &["on this machine"], "warning");
        check("https://a.example", &["Source text", "go to https://a.example/v1"], "warning");
        check("http://10.0.0.7:8000", &["Source text", "warning"], "on this machine");
    }
}
