//! The handle to a loaded model.
//!
//! In: requests from any thread. Out: their answers, one each.
//! Thread: any; the work happens on the engine thread, which ends with the last handle, or in another process,
//! behind a [`Link`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::Sender;

use crate::constrain::{Constraint, GrammarVocabulary, constraint};
use crate::device::{self, Placed};
use crate::drafter::DraftModel;
use crate::job::{Caller, Event, GenerateJob, Job, Pace, Parts, ScoreJob, ScoreReply};
use crate::retained::Retained;
use crate::scheduler::Load;
use crate::{
    CancelToken, Device, Error, GenerateRequest, Generation, Gguf, GrammarSpec, KvType, Logits, Metrics,
    ModelSpec, Priority, Recorder, Score, ScoreRequest, StepCosts, TokenId, Tokenizer, record, scheduler,
};

/// Most tokens of context used unless a caller asks for more: what ghost text and one function's repair need, at
/// 23 KiB a token for the default model, 12 as q8_0.
const DEFAULT_N_CTX: usize = 8192;

/// Most requests without an answer. A queue that grows further only makes all of them late.
const N_MAX_JOBS: usize = 256;

/// How a model is loaded.
#[derive(Default)]
pub struct EngineOptions {
    /// Most tokens a sequence may have; the model's own limit and 8,192 when not set.
    pub n_ctx: Option<usize>,
    /// How keys and values are stored; f16 when not set.
    pub kv: KvType,
    /// The file of a smaller model with the same vocabulary that drafts where that pays; the answers are the same.
    pub draft_model: Option<PathBuf>,
    /// Where the model runs; the draft model runs on the CPU.
    pub device: Device,
}

/// Hears how much of a model is loaded, 0 to 1.
pub type LoadProgress<'a> = &'a mut dyn FnMut(f32);

/// A loaded model. Clones share it.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    recorder: Option<Arc<dyn Recorder>>,
}

struct Shared {
    spec: ModelSpec,
    tokenizer: Arc<Tokenizer>,
    grammars: GrammarVocabulary,
    n_ctx: usize,
    way: Way,
    /// What of the loading is not as it was asked for.
    remark: Option<String>,
}

/// How a request gets to the model.
enum Way {
    Thread { load: Arc<Load>, inbox: Sender<Box<dyn Job>>, metrics: Arc<Metrics> },
    Link(Arc<dyn Link>),
}

/// The way to a model that another process runs. What it is given has been checked as [`Engine`] checks it.
pub trait Link: Send + Sync {
    /// Does what [`Engine::generate_many`] does.
    ///
    /// # Errors
    /// Those of [`Engine::generate`], [`Error::Busy`], and [`Error::Link`] for what the way there adds.
    fn generate(
        &self,
        request: GenerateRequest,
        n_answers: usize,
        on_text: &mut dyn FnMut(usize, &str) -> bool,
        cancel: &CancelToken,
    ) -> Result<Vec<Generation>, Error>;

    /// Does what [`Engine::score`] does.
    ///
    /// # Errors
    /// As [`Link::generate`].
    fn score(&self, request: ScoreRequest, cancel: &CancelToken) -> Result<Option<Vec<Score>>, Error>;
}

impl Engine {
    /// Loads the model in a GGUF file and starts the engine thread.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Gguf`], [`Error::Tokenizer`], [`Error::Unsupported`] or [`Error::Inconsistent`]: all of
    /// them about the file, all of them with a hint for its user. [`Error::Draft`] and [`Error::DraftVocabulary`] about
    /// the draft model's.
    pub fn load(path: &Path, options: EngineOptions, progress: LoadProgress<'_>) -> Result<Self, Error> {
        let started = Instant::now();
        let gguf = Gguf::open(path).map_err(|source| Error::opening(path, source))?;
        let spec = ModelSpec::from_gguf(&gguf)?;
        let tokenizer = Arc::new(Tokenizer::from_gguf(&gguf)?);
        let n_ctx = options.n_ctx.unwrap_or(DEFAULT_N_CTX).min(spec.n_ctx);
        // Room for two whole contexts: one that runs and what the last requests left behind.
        let n_kv_tokens = 2 * n_ctx;
        let Placed { place, kv, remark } =
            device::load(&gguf, &spec, (options.kv, n_kv_tokens), options.device, &mut *progress)?;
        drop(gguf);
        if let Some(remark) = &remark {
            tracing::info!("{remark}");
        }
        let load = Arc::new(Load::default());
        let draft_model = match &options.draft_model {
            Some(path) => {
                let kv = (options.kv, n_kv_tokens);
                Some(DraftModel::load(path, place.cpu(), &tokenizer, kv, Arc::clone(&load), progress)?)
            }
            None => None,
        };
        let mut metrics = Metrics::new(&spec, &kv, place.n_weight_bytes());
        if let Some(draft_model) = &draft_model {
            metrics.n_draft_weight_bytes = draft_model.n_weight_bytes();
            metrics.n_draft_kv_bytes = draft_model.n_kv_bytes();
        }
        let metrics = Arc::new(metrics);
        let parts = Parts {
            backend: place.into_backend(),
            kv,
            retained: Retained::default(),
            tokenizer: Arc::clone(&tokenizer),
            odds: Default::default(),
            logits: Logits::default(),
            pace: Pace::new(),
            costs: StepCosts::default(),
            draft_model,
            metrics: Arc::clone(&metrics),
        };
        let thread_load = Arc::clone(&load);
        let (inbox, jobs) = crossbeam_channel::unbounded();
        let thread_spec = spec.clone();
        std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || scheduler::run(parts, &thread_spec, &thread_load, &jobs))
            .map_err(|source| Error::Io { path: path.to_owned(), source })?;
        tracing::info!(
            architecture = spec.architecture,
            n_layers = spec.n_layers,
            n_ctx,
            has_draft_model = options.draft_model.is_some(),
            load_ms = started.elapsed().as_millis() as u64,
            "model loaded"
        );
        let grammars = GrammarVocabulary::new(Arc::clone(&tokenizer));
        let way = Way::Thread { load, inbox, metrics };
        Ok(Self {
            shared: Arc::new(Shared { spec, tokenizer, grammars, n_ctx, way, remark }),
            recorder: None,
        })
    }

    /// Returns an engine whose model another process runs, from the same file: only its metadata are read here.
    ///
    /// # Errors
    /// Those of [`Engine::load`] about the file's metadata.
    pub fn linked(path: &Path, n_ctx: usize, link: Arc<dyn Link>) -> Result<Self, Error> {
        let gguf = Gguf::open(path).map_err(|source| Error::opening(path, source))?;
        let spec = ModelSpec::from_gguf(&gguf)?;
        let tokenizer = Arc::new(Tokenizer::from_gguf(&gguf)?);
        let grammars = GrammarVocabulary::new(Arc::clone(&tokenizer));
        let way = Way::Link(link);
        Ok(Self {
            shared: Arc::new(Shared { spec, tokenizer, grammars, n_ctx, way, remark: None }),
            recorder: None,
        })
    }

    /// Returns the same engine, of whose requests, and those of its clones, `recorder` hears.
    #[must_use]
    pub fn with_recorder(self, recorder: Arc<dyn Recorder>) -> Self {
        Self { recorder: Some(recorder), ..self }
    }

    /// Returns what the engine has done, or `None` where another process runs it and counts.
    pub fn metrics(&self) -> Option<&Metrics> {
        match &self.shared.way {
            Way::Thread { metrics, .. } => Some(metrics),
            Way::Link(_) => None,
        }
    }

    /// Returns what is not as it was asked for: a model that runs on the CPU for want of a GPU.
    pub fn remark(&self) -> Option<&str> {
        self.shared.remark.as_deref()
    }

    /// Returns the model's shape.
    pub fn spec(&self) -> &ModelSpec {
        &self.shared.spec
    }

    /// Returns the model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.shared.tokenizer
    }

    /// Returns the most tokens a sequence may have here.
    pub fn n_ctx(&self) -> usize {
        self.shared.n_ctx
    }

    /// Continues a prompt. `on_text` hears the answer as it grows and returns whether it wants more.
    ///
    /// Blocks until the answer is complete. A cancelled request ends with
    /// [`StopReason::Cancelled`](crate::StopReason::Cancelled), which is not an error.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`], [`Error::UnknownToken`], [`Error::PromptTooLong`] and [`Error::Grammar`] are the
    /// caller's to fix; [`Error::Busy`] passes;
    /// [`Error::KvFull`], [`Error::Candle`], [`Error::Gone`] and [`Error::Link`] are ours.
    pub fn generate(
        &self,
        request: GenerateRequest,
        on_text: &mut dyn FnMut(&str) -> bool,
        cancel: &CancelToken,
    ) -> Result<Generation, Error> {
        let mut answers = self.generate_many(request, 1, &mut |_, text| on_text(text), cancel)?;
        answers.pop().ok_or(Error::Gone)
    }

    /// Continues a prompt `n_answers` times, which are computed together and share what they have in common.
    ///
    /// Answer `i` is the one that [`Engine::generate`] gives with `sampling.seed + i`. `on_text` also hears which answer
    /// grows.
    ///
    /// # Errors
    /// As [`Engine::generate`].
    pub fn generate_many(
        &self,
        request: GenerateRequest,
        n_answers: usize,
        on_text: &mut dyn FnMut(usize, &str) -> bool,
        cancel: &CancelToken,
    ) -> Result<Vec<Generation>, Error> {
        if n_answers == 0 {
            return Ok(Vec::new());
        }
        match &self.recorder {
            Some(recorder) => record::generate(self, recorder.as_ref(), request, n_answers, on_text, cancel),
            None => self.generate_unrecorded(request, n_answers, on_text, cancel),
        }
    }

    /// Does what [`Engine::generate_many`] does, for one answer at least.
    pub(crate) fn generate_unrecorded(
        &self,
        request: GenerateRequest,
        n_answers: usize,
        on_text: &mut dyn FnMut(usize, &str) -> bool,
        cancel: &CancelToken,
    ) -> Result<Vec<Generation>, Error> {
        self.check(&request.prompt, 1)?;
        let (load, inbox) = match &self.shared.way {
            Way::Thread { load, inbox, .. } => (load, inbox),
            Way::Link(link) => return link.generate(request, n_answers, on_text, cancel),
        };
        let constraints: Result<Vec<_>, Error> = (0..n_answers).map(|_| self.constraint(&request)).collect();
        let (reply, events) = crossbeam_channel::unbounded();
        let caller = caller(reply, n_answers, cancel);
        let enough = Arc::clone(&caller.enough);
        submit(load, inbox, Box::new(GenerateJob::new(request, constraints?, caller, self.shared.n_ctx)))?;
        loop {
            match events.recv() {
                Ok(Event::Text { answer_idx, text }) => {
                    if !on_text(answer_idx, &text) {
                        enough[answer_idx].store(true, Ordering::Release);
                    }
                }
                Ok(Event::Done(result)) => return result,
                Err(_) => return Err(Error::Gone),
            }
        }
    }

    /// Returns how likely the model finds each token from `request.from` on, or `None` when cancelled.
    ///
    /// # Errors
    /// As [`Engine::generate`].
    pub fn score(&self, request: ScoreRequest, cancel: &CancelToken) -> Result<Option<Vec<Score>>, Error> {
        match &self.recorder {
            Some(recorder) => record::score(self, recorder.as_ref(), request, cancel),
            None => self.score_unrecorded(request, cancel),
        }
    }

    /// Does what [`Engine::score`] does.
    pub(crate) fn score_unrecorded(
        &self,
        request: ScoreRequest,
        cancel: &CancelToken,
    ) -> Result<Option<Vec<Score>>, Error> {
        self.check(&request.tokens, 0)?;
        self.check_known(request.asked.values().flatten())?;
        let (load, inbox) = match &self.shared.way {
            Way::Thread { load, inbox, .. } => (load, inbox),
            Way::Link(link) => return link.score(request, cancel),
        };
        let (reply, replies) = crossbeam_channel::bounded::<ScoreReply>(1);
        submit(load, inbox, Box::new(ScoreJob::new(request, caller(reply, 0, cancel))))?;
        replies.recv().unwrap_or(Err(Error::Gone))
    }

    /// Compiles a grammar as a request would, and forgets it.
    ///
    /// # Errors
    /// [`Error::Grammar`]: its author can mend it. That it compiles does not mean that this vocabulary can follow it.
    pub fn check_grammar(&self, spec: &GrammarSpec) -> Result<(), Error> {
        self.shared.grammars.compile(spec)?;
        Ok(())
    }

    /// Compiles what constrains an answer here, on the caller's thread: the engine thread has others to serve.
    fn constraint(&self, request: &GenerateRequest) -> Result<Option<Box<dyn Constraint>>, Error> {
        let grammar = match &request.grammar {
            Some(spec) => Some(self.shared.grammars.compile(spec)?),
            None => None,
        };
        Ok(constraint(&self.shared.tokenizer, request.healed.clone(), grammar))
    }

    fn check(&self, tokens: &[TokenId], n_more: usize) -> Result<(), Error> {
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        self.check_known(tokens)?;
        let n_tokens = tokens.len() + n_more;
        if n_tokens > self.shared.n_ctx {
            return Err(Error::PromptTooLong { n_tokens, n_ctx: self.shared.n_ctx });
        }
        Ok(())
    }

    fn check_known<'t>(&self, tokens: impl IntoIterator<Item = &'t TokenId>) -> Result<(), Error> {
        match tokens.into_iter().find(|token| token.0 as usize >= self.shared.spec.n_vocab) {
            Some(unknown) => Err(Error::UnknownToken(unknown.0)),
            None => Ok(()),
        }
    }
}

fn caller<T>(reply: Sender<T>, n_answers: usize, cancel: &CancelToken) -> Caller<T> {
    let enough = (0..n_answers).map(|_| AtomicBool::new(false)).collect();
    Caller { reply, cancel: cancel.clone(), enough, since: Instant::now() }
}

fn submit(load: &Load, inbox: &Sender<Box<dyn Job>>, job: Box<dyn Job>) -> Result<(), Error> {
    let n_jobs = load.n_jobs.fetch_add(1, Ordering::AcqRel);
    if n_jobs >= N_MAX_JOBS {
        load.n_jobs.fetch_sub(1, Ordering::AcqRel);
        return Err(Error::Busy { n_waiting: n_jobs });
    }
    if job.priority() == Priority::Interactive {
        load.n_arriving.fetch_add(1, Ordering::AcqRel);
    }
    inbox.send(job).map_err(|_| Error::Gone)
}
