//! Which nodes of which grammar define what.

use tree_sitter::Node;

use super::DefinitionKind::{self, Class, Constant, Enum, Function, Interface, Method, Struct, Trait, Type};
use crate::Language;

/// Returns what a node defines, and the node of its name.
pub(super) fn defined(language: Language, node: Node<'_>) -> Option<(DefinitionKind, Node<'_>)> {
    match language {
        Language::Bash => (node.kind() == "function_definition").then_some(Function).zip(name(node)),
        Language::C | Language::Cpp => c(node),
        Language::CSharp => c_sharp(node),
        Language::Go => go(node),
        Language::Java => java(node),
        Language::JavaScript | Language::Tsx | Language::TypeScript => javascript(node),
        Language::Lua => lua(node),
        Language::Php => php(node),
        Language::Python => python(node),
        Language::Ruby => ruby(node),
        Language::Rust => rust(node),
        Language::Css
        | Language::Html
        | Language::Json
        | Language::Markdown
        | Language::Toml
        | Language::Yaml => None,
    }
}

/// Returns the type that a node adds functions to without defining it.
pub(super) fn implemented(language: Language, node: Node<'_>) -> Option<Node<'_>> {
    let is_impl = language == Language::Rust && node.kind() == "impl_item";
    is_impl.then(|| node.child_by_field_name("type"))?.map(|implemented| {
        // `A` of `A<T>`.
        implemented.child_by_field_name("type").unwrap_or(implemented)
    })
}

/// Returns the type of Go's receiver.
pub(super) fn receiver(node: Node<'_>) -> Option<Node<'_>> {
    let mut receiver = node.child_by_field_name("receiver")?.named_child(0)?.child_by_field_name("type")?;
    while let Some(inner) = receiver.named_child(0) {
        receiver = inner;
    }
    Some(receiver)
}

/// Returns a definition with what is written around it and belongs to it.
pub(super) fn item(node: Node<'_>) -> Node<'_> {
    let mut item = node;
    while let Some(parent) = item.parent().filter(|parent| {
        let is_around = matches!(
            parent.kind(),
            "decorated_definition" | "export_statement" | "template_declaration" | "ambient_declaration"
        );
        let is_one_of = matches!(
            parent.kind(),
            "lexical_declaration"
                | "variable_declaration"
                | "type_declaration"
                | "const_declaration"
                | "expression_statement"
        );
        is_around || is_one_of && parent.named_child_count() == 1
    }) {
        item = parent;
    }
    item
}

/// Returns the part of a definition that its users need not know.
pub(super) fn body(node: Node<'_>) -> Option<Node<'_>> {
    node.child_by_field_name("body").or_else(|| {
        let value = node.child_by_field_name("value").or_else(|| node.child_by_field_name("right"))?;
        value.child_by_field_name("body")
    })
}

fn name(node: Node<'_>) -> Option<Node<'_>> {
    node.child_by_field_name("name")
}

/// Returns whether a node stands in the text itself, exported or not.
fn is_outermost(node: Node<'_>) -> bool {
    item(node).parent().is_some_and(|parent| parent.parent().is_none())
}

fn python(node: Node<'_>) -> Option<(DefinitionKind, Node<'_>)> {
    match node.kind() {
        "function_definition" => Some(Function).zip(name(node)),
        "class_definition" => Some(Class).zip(name(node)),
        "assignment" if is_outermost(node) => {
            let left = node.child_by_field_name("left").filter(|left| left.kind() == "identifier");
            Some(Constant).zip(left)
        }
        _ => None,
    }
}

fn rust(node: Node<'_>) -> Option<(DefinitionKind, Node<'_>)> {
    let kind = match node.kind() {
        "function_item" | "function_signature_item" | "macro_definition" => Function,
        "struct_item" | "union_item" => Struct,
        "enum_item" => Enum,
        "trait_item" => Trait,
        "type_item" => Type,
        "const_item" | "static_item" => Constant,
        _ => return None,
    };
    Some(kind).zip(name(node))
}

fn javascript(node: Node<'_>) -> Option<(DefinitionKind, Node<'_>)> {
    let is_function = || {
        node.child_by_field_name("value").is_some_and(|value| {
            matches!(value.kind(), "arrow_function" | "function_expression" | "generator_function")
        })
    };
    let kind = match node.kind() {
        "function_declaration" | "generator_function_declaration" | "function_signature" => Function,
        "class_declaration" | "abstract_class_declaration" => Class,
        "interface_declaration" => Interface,
        "enum_declaration" => Enum,
        "type_alias_declaration" => Type,
        "method_definition" | "method_signature" | "abstract_method_signature" => Method,
        "field_definition" | "public_field_definition" if is_function() => Method,
        "variable_declarator" if is_function() => Function,
        "variable_declarator" => {
            let declaration = node.parent()?;
            let is_constant =
                declaration.child_by_field_name("kind").is_some_and(|kind| kind.kind() == "const");
            if !is_constant || !is_outermost(node) {
                return None;
            }
            Constant
        }
        _ => return None,
    };
    let name = name(node).or_else(|| node.child_by_field_name("property"))?;
    name.kind().ends_with("identifier").then_some((kind, name))
}

fn go(node: Node<'_>) -> Option<(DefinitionKind, Node<'_>)> {
    let kind = match node.kind() {
        "function_declaration" => Function,
        "method_declaration" | "method_elem" => Method,
        "type_alias" => Type,
        "type_spec" => match node.child_by_field_name("type")?.kind() {
            "struct_type" => Struct,
            "interface_type" => Interface,
            _ => Type,
        },
        "const_spec" => Constant,
        _ => return None,
    };
    Some(kind).zip(name(node))
}

fn c(node: Node<'_>) -> Option<(DefinitionKind, Node<'_>)> {
    let with_body = |kind| node.child_by_field_name("body").map(|_| kind).zip(name(node));
    match node.kind() {
        "struct_specifier" | "union_specifier" => with_body(Struct),
        "class_specifier" => with_body(Class),
        "enum_specifier" => with_body(Enum),
        "preproc_def" => Some(Constant).zip(name(node)),
        "preproc_function_def" => Some(Function).zip(name(node)),
        "alias_declaration" => Some(Type).zip(name(node)),
        "type_definition" => Some(Type).zip(declared(node).map(|(name, _)| name)),
        "function_definition" | "declaration" | "field_declaration" => {
            declared(node).filter(|(_, is_function)| *is_function).map(|(name, _)| (Function, name))
        }
        _ => None,
    }
}

/// Returns the name that C's declarators come to, and whether one is a function's.
fn declared(node: Node<'_>) -> Option<(Node<'_>, bool)> {
    let mut is_function = false;
    let mut declarator = node.child_by_field_name("declarator")?;
    loop {
        is_function |= declarator.kind() == "function_declarator";
        let inner = declarator.child_by_field_name("declarator").or_else(|| {
            let is_around = matches!(declarator.kind(), "reference_declarator" | "parenthesized_declarator");
            declarator.named_child(0).filter(|_| is_around)
        });
        match inner {
            Some(inner) => declarator = inner,
            None => return Some((declarator, is_function)),
        }
    }
}

fn java(node: Node<'_>) -> Option<(DefinitionKind, Node<'_>)> {
    let kind = match node.kind() {
        "class_declaration" | "record_declaration" => Class,
        "interface_declaration" | "annotation_type_declaration" => Interface,
        "enum_declaration" => Enum,
        "method_declaration" | "constructor_declaration" => Method,
        "constant_declaration" => return Some(Constant).zip(name(node.child_by_field_name("declarator")?)),
        "field_declaration" if has_words(node, &["static", "final"]) => {
            return Some(Constant).zip(name(node.child_by_field_name("declarator")?));
        }
        _ => return None,
    };
    Some(kind).zip(name(node))
}

fn c_sharp(node: Node<'_>) -> Option<(DefinitionKind, Node<'_>)> {
    let kind = match node.kind() {
        "class_declaration" | "record_declaration" => Class,
        "struct_declaration" => Struct,
        "interface_declaration" => Interface,
        "enum_declaration" => Enum,
        "method_declaration" | "constructor_declaration" => Method,
        "field_declaration" if has_words(node, &["const"]) || has_words(node, &["static", "readonly"]) => {
            let declaration = child_of(node, "variable_declaration")?;
            return Some(Constant).zip(name(child_of(declaration, "variable_declarator")?));
        }
        _ => return None,
    };
    Some(kind).zip(name(node))
}

/// Returns whether a declaration's modifiers hold all of `words`.
fn has_words(node: Node<'_>, words: &[&str]) -> bool {
    let mut found = vec![false; words.len()];
    let mut cursor = node.walk();
    for child in node.children(&mut cursor).take_while(|child| !child.kind().contains("declarat")) {
        let mut inner = child.walk();
        for word in child.children(&mut inner) {
            for (found, wanted) in found.iter_mut().zip(words) {
                *found |= word.kind() == *wanted;
            }
        }
    }
    found.iter().all(|found| *found)
}

fn child_of<'t>(node: Node<'t>, kind: &str) -> Option<Node<'t>> {
    let mut cursor = node.walk();
    node.children(&mut cursor).find(|child| child.kind() == kind)
}

fn ruby(node: Node<'_>) -> Option<(DefinitionKind, Node<'_>)> {
    match node.kind() {
        "method" | "singleton_method" => Some(Function).zip(name(node)),
        "class" | "module" => Some(Class).zip(name(node)),
        "assignment" => {
            let left = node.child_by_field_name("left").filter(|left| left.kind() == "constant");
            Some(Constant).zip(left)
        }
        _ => None,
    }
}

fn php(node: Node<'_>) -> Option<(DefinitionKind, Node<'_>)> {
    let kind = match node.kind() {
        "function_definition" => Function,
        "method_declaration" => Method,
        "class_declaration" => Class,
        "interface_declaration" => Interface,
        "trait_declaration" => Trait,
        "enum_declaration" => Enum,
        "const_element" => return Some(Constant).zip(node.named_child(0)),
        _ => return None,
    };
    Some(kind).zip(name(node))
}

fn lua(node: Node<'_>) -> Option<(DefinitionKind, Node<'_>)> {
    match node.kind() {
        "function_declaration" => Some(Function).zip(name(node)),
        "assignment_statement" => {
            let value = child_of(node, "expression_list")?.named_child(0)?;
            let target = child_of(node, "variable_list")?.named_child(0)?;
            (value.kind() == "function_definition").then_some((Function, target))
        }
        _ => None,
    }
}
