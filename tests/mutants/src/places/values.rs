//! Values that a function might return without doing its work.

use quote::ToTokens as _;
use syn::{GenericArgument, PathArguments, ReturnType, Type};

/// Expressions of the type that a function returns; none where only its own code can make one.
pub(crate) fn of(output: &ReturnType) -> Vec<String> {
    match output {
        ReturnType::Default => vec!["()".to_owned()],
        ReturnType::Type(_, of) => of_type(of),
    }
}

fn of_type(of: &Type) -> Vec<String> {
    let several = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    match of {
        _ if of.to_token_stream().to_string().contains("impl ") => Vec::new(),
        Type::Tuple(tuple) if tuple.elems.is_empty() => several(&["()"]),
        Type::Reference(to) if to.mutability.is_none() => match &*to.elem {
            Type::Slice(_) => several(&["&[]"]),
            Type::Path(path) if path.path.is_ident("str") => several(&["\"\""]),
            _ => Vec::new(),
        },
        Type::Path(path) => {
            let Some(last) = path.path.segments.last() else {
                return Vec::new();
            };
            let arguments = arguments(&last.arguments);
            match last.ident.to_string().as_str() {
                "bool" => several(&["true", "false"]),
                "u8" | "u16" | "u32" | "u64" | "u128" | "usize" | "i8" | "i16" | "i32" | "i64"
                | "i128" | "isize" => several(&["0", "1"]),
                "String" => several(&["String::new()"]),
                "Option" => several(&["None"]),
                "Vec" | "HashMap" | "HashSet" | "BTreeMap" | "BTreeSet" => {
                    several(&["Default::default()"])
                }
                "Result" => match arguments.first() {
                    None => several(&["Ok(())"]),
                    Some(value) => of_type(value)
                        .iter()
                        .map(|value| format!("Ok({value})"))
                        .collect(),
                },
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}

fn arguments(arguments: &PathArguments) -> Vec<&Type> {
    let PathArguments::AngleBracketed(arguments) = arguments else {
        return Vec::new();
    };
    let types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(of) => Some(of),
        _ => None,
    });
    types.collect()
}
