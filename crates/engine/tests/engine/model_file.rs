//! Models made of the default one: with fewer layers, with more that do nothing, with another vocabulary.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;

use candle_core::quantized::QTensor;
use candle_core::quantized::gguf_file::{Content, Value, write};
use candle_core::{Device, Tensor};

use crate::model_path;

/// A model file that is gone with its value.
pub(crate) struct ModelFile {
    dir: tempfile::TempDir,
}

impl ModelFile {
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("model.gguf")
    }
}

/// Returns the default model with `n_layers` layers. Those beyond its own are copies of the last one, whose two
/// branches add nothing: the logits are the same, and take as much longer.
pub(crate) fn with_layers(n_layers: usize) -> ModelFile {
    made(|metadata, tensors| {
        let Some(Value::U32(n_own)) =
            metadata.insert("llama.block_count".into(), Value::U32(n_layers as u32))
        else {
            panic!("the number of layers is a u32")
        };
        let n_own = n_own as usize;
        tensors.retain(|(name, _)| layer_idx(name).is_none_or(|idx| idx < n_layers));
        let last = format!("blk.{}.", n_own - 1);
        let copied: Vec<(String, usize)> = tensors
            .iter()
            .filter_map(|(name, tensor_idx)| Some((name.strip_prefix(&last)?.to_owned(), *tensor_idx)))
            .collect();
        for idx in n_own..n_layers {
            tensors
                .extend(copied.iter().map(|(part, tensor_idx)| (format!("blk.{idx}.{part}"), *tensor_idx)));
        }
    })
}

/// Returns the default model with the texts of two tokens exchanged.
pub(crate) fn with_another_vocabulary() -> ModelFile {
    made(|metadata, _| {
        let Some(Value::Array(texts)) = metadata.get_mut("tokenizer.ggml.tokens") else {
            panic!("the tokens are an array")
        };
        texts.swap(30_000, 30_001);
    })
}

/// Returns the default model as a file that claims to be of another architecture.
pub(crate) fn of_another_architecture() -> ModelFile {
    made(|metadata, _| {
        metadata.insert("general.architecture".into(), Value::String("mamba".into()));
    })
}

fn layer_idx(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

/// Writes the default model after `change`, which is given the metadata, and the tensors' names with their indices.
fn made(change: impl FnOnce(&mut HashMap<String, Value>, &mut Vec<(String, usize)>)) -> ModelFile {
    let mut file = File::open(model_path()).unwrap();
    let mut content = Content::read(&mut file).unwrap();
    let mut names: Vec<String> = content.tensor_infos.keys().cloned().collect();
    names.sort();
    let loaded: Vec<QTensor> =
        names.iter().map(|name| content.tensor(&mut file, name, &Device::Cpu).unwrap()).collect();
    let n_own = names.iter().filter_map(|name| layer_idx(name)).max().unwrap() + 1;
    let mut tensors: Vec<(String, usize)> = names.into_iter().zip(0..).collect();
    change(&mut content.metadata, &mut tensors);
    let zeros: Vec<Option<QTensor>> = tensors
        .iter()
        .map(|(name, idx)| {
            let adds = name.ends_with("attn_output.weight") || name.ends_with("ffn_down.weight");
            let is_added = layer_idx(name).is_some_and(|layer_idx| layer_idx >= n_own);
            (adds && is_added).then(|| {
                let zeros =
                    Tensor::zeros(loaded[*idx].shape(), candle_core::DType::F32, &Device::Cpu).unwrap();
                QTensor::quantize(&zeros, loaded[*idx].dtype()).unwrap()
            })
        })
        .collect();
    let written: Vec<(&str, &QTensor)> = tensors
        .iter()
        .zip(&zeros)
        .map(|((name, idx), zeros)| (name.as_str(), zeros.as_ref().unwrap_or(&loaded[*idx])))
        .collect();
    let metadata: Vec<(&str, &Value)> =
        content.metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let model = ModelFile { dir: tempfile::tempdir().unwrap() };
    let mut out = BufWriter::new(File::create(model.path()).unwrap());
    write(&mut out, &metadata, &written).unwrap();
    model
}
