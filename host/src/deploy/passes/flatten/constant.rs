//! Globals that nobody writes, and what they are: known when the component is deployed, though each module was told by another
//! only when it was made.

use wasm_encoder::Instruction;
use wasmparser::{ConstExpr, Operator};

use super::Refusal;

/// A number that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Constant {
    I32(i32),
    I64(i64),
}

impl Constant {
    pub(super) fn instruction(self) -> Instruction<'static> {
        match self {
            Self::I32(value) => Instruction::I32Const(value),
            Self::I64(value) => Instruction::I64Const(value),
        }
    }

    pub(super) fn expression(self) -> wasm_encoder::ConstExpr {
        match self {
            Self::I32(value) => wasm_encoder::ConstExpr::i32_const(value),
            Self::I64(value) => wasm_encoder::ConstExpr::i64_const(value),
        }
    }
}

/// What an expression comes to, if that is a known whole number. `global` says what a global is.
pub(super) fn value(
    expression: &ConstExpr<'_>,
    global: impl Fn(u32) -> Option<Constant>,
) -> Result<Option<Constant>, Refusal> {
    use Constant::{I32, I64};
    let mut stack: Vec<Constant> = Vec::new();
    let mut operators = expression.get_operators_reader();
    while !operators.is_end_then_eof() {
        let operator = operators.read()?;
        let pushed = match operator {
            Operator::I32Const { value } => Some(I32(value)),
            Operator::I64Const { value } => Some(I64(value)),
            Operator::GlobalGet { global_index } => global(global_index),
            _ => match (stack.pop(), stack.pop()) {
                (Some(I32(right)), Some(I32(left))) => match operator {
                    Operator::I32Add => Some(I32(left.wrapping_add(right))),
                    Operator::I32Sub => Some(I32(left.wrapping_sub(right))),
                    Operator::I32Mul => Some(I32(left.wrapping_mul(right))),
                    _ => None,
                },
                (Some(I64(right)), Some(I64(left))) => match operator {
                    Operator::I64Add => Some(I64(left.wrapping_add(right))),
                    Operator::I64Sub => Some(I64(left.wrapping_sub(right))),
                    Operator::I64Mul => Some(I64(left.wrapping_mul(right))),
                    _ => None,
                },
                _ => None,
            },
        };
        match pushed {
            Some(constant) => stack.push(constant),
            None => return Ok(None),
        }
    }
    Ok(stack.pop())
}
