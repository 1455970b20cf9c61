//! How a model writes its answer, as its template shows.
//!
//! In: a template's source. Out: [`ChatFormat`]. Never: guesses from an answer.
//! Source: `common_chat_templates_apply_jinja` in llama.cpp's `common/chat.cpp`.

/// How tool calls look on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ToolFormat {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`: Hermes, Qwen 2.5, Qwen 3.
    Hermes,
    /// `<tool_call><function=NAME><parameter=P>…</parameter></function></tool_call>`: Qwen3-Coder.
    QwenXml,
    /// `<｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME`, then the arguments in a fence: DeepSeek-R1.
    DeepSeek,
    /// `[TOOL_CALLS][{"name": …, "arguments": {…}, "id": …}]`: Mistral Nemo.
    Mistral,
    /// `{"name": …, "parameters": {…}}` and nothing else, or after `<|python_tag|>`: Llama 3.1.
    Llama3,
}

/// What encloses a model's thoughts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReasoningTags {
    /// Before them.
    pub open: &'static str,
    /// After them.
    pub close: &'static str,
}

/// How a model writes its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ChatFormat {
    /// How it asks for tools; `None` if it cannot, or none are offered.
    pub tools: Option<ToolFormat>,
    /// What encloses its thoughts; `None` if it does not think.
    pub reasoning: Option<ReasoningTags>,
}

pub(super) const THINK: ReasoningTags = ReasoningTags { open: "<think>", close: "</think>" };

impl ChatFormat {
    /// Detects the format of the model whose template is `source`.
    pub fn detect(source: &str) -> Self {
        let reasoning = source.contains(THINK.close).then_some(THINK);
        Self { tools: ToolFormat::detect(source), reasoning }
    }

    /// Returns the texts of an answer that its reader must see, be they special tokens or not.
    pub(super) fn markers(&self) -> Vec<&'static str> {
        let tags = self.reasoning.iter().flat_map(|tags| [tags.open, tags.close]);
        tags.chain(self.tools.into_iter().flat_map(ToolFormat::markers).copied()).collect()
    }
}

impl ToolFormat {
    fn detect(source: &str) -> Option<Self> {
        let has = |text: &str| source.contains(text);
        if has("<｜tool▁calls▁begin｜>") && has("```json") {
            return Some(Self::DeepSeek);
        }
        // Others use the same tag for formats of their own: GLM `<arg_key>`, MiniMax `<invoke`.
        if has("<tool_call>") && !has("<arg_key>") && !has("<invoke") {
            return if has("<function=") {
                Some(Self::QwenXml)
            } else {
                has("arguments").then_some(Self::Hermes)
            };
        }
        // Later Mistral models write `[TOOL_CALLS]NAME[ARGS]{…}`.
        if has("[TOOL_CALLS]") && !has("[ARGS]") && !has("[CALL_ID]") {
            return Some(Self::Mistral);
        }
        (has("<|start_header_id|>ipython<|end_header_id|>") && has("\"parameters\"")).then_some(Self::Llama3)
    }

    /// Returns the texts that begin a call, or enclose it; some are special tokens in some vocabularies.
    fn markers(self) -> &'static [&'static str] {
        match self {
            Self::Hermes | Self::QwenXml => &["<tool_call>", "</tool_call>"],
            Self::DeepSeek => &[
                "<｜tool▁calls▁begin｜>",
                "<｜tool▁call▁begin｜>",
                "<｜tool▁sep｜>",
                "<｜tool▁call▁end｜>",
                "<｜tool▁calls▁end｜>",
            ],
            Self::Mistral => &["[TOOL_CALLS]"],
            Self::Llama3 => &["<|python_tag|>"],
        }
    }
}
