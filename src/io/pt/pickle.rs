//! The pickle machine (Python's `pickletools` documents each opcode), protocols 2 to 5.
//!
//! It makes numbers, texts, tuples, lists, dicts, and what `rebuild.rs` knows of tensors. An object of any other type is
//! never made: its place is taken by the name of the type, and what it is given is let go, so there is nothing here that
//! could run code. Every opcode makes at most one value, so memory is bounded by the stream's length.

use std::collections::HashMap;

use super::heap::{Heap, MOST_NAME, Outcome, REFUSED};
use super::rebuild;
use super::value::{Id, Value};

/// The longest stream that is read. Those of published checkpoints take a tenth of a megabyte.
pub(super) const MOST_BYTES: usize = 16 << 20;

/// The most values, marks and remembered places at a time: a published checkpoint makes some ten thousand.
const MOST_VALUES: usize = 1 << 20;

/// Runs one pickle at the start of `bytes`: its value, and how many bytes it took.
pub(super) fn load(bytes: &[u8], heap: &mut Heap) -> Outcome<(Id, usize)> {
    let mut machine =
        Machine { bytes, at: 0, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new(), copied: 0, heap };
    loop {
        let at = machine.at;
        let located = |what: String| format!("byte {at} of its pickle: {what}");
        if let Some(root) = machine.step().map_err(located)? {
            return Ok((root, machine.at));
        }
        let Machine { heap, stack, marks, memo, .. } = &machine;
        if heap.len() + stack.len() + marks.len() + memo.len() > MOST_VALUES {
            return Err(located(format!("it makes more than {MOST_VALUES} values")));
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// Entries of dicts that were copied.
    copied: usize,
    heap: &'a mut Heap,
}

impl Machine<'_> {
    /// One opcode; the root value at STOP.
    fn step(&mut self) -> Outcome<Option<Id>> {
        let opcode = self.take(1)?[0];
        match opcode {
            b'.' => return self.pop().map(Some),
            0x80 => {
                let protocol = self.take(1)?[0];
                if !(2..=5).contains(&protocol) {
                    return Err(format!("protocol {protocol} is not read, only 2 to 5 are"));
                }
            }
            0x95 => drop(self.take(8)?),

            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = *self.stack.last().ok_or("the stack is empty")?;
                self.stack.push(top);
            }

            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'K' => {
                let value = self.take(1)?[0];
                self.push(Value::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()));
            }
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()));
            }
            0x8a => {
                let length = self.take(1)?[0];
                self.long(length.into())?;
            }
            0x8b => {
                let length = self.length4()?;
                self.long(length)?;
            }
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(value));
            }
            0x8c | b'U' | b'C' => {
                let length = self.take(1)?[0];
                self.text(length.into(), opcode == 0x8c)?;
            }
            b'X' | b'T' | b'B' => {
                let length = self.length4()?;
                self.text(length, opcode == b'X')?;
            }
            0x8d | 0x8e | 0x96 => {
                let length = u64::from_le_bytes(self.array()?);
                self.text(
                    usize::try_from(length).map_err(|_| "a text of no sensible length")?,
                    opcode == 0x8d,
                )?;
            }

            b')' => self.push(Value::Tuple(Vec::new())),
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let floor = self.floor();
                let first = self.stack.len().checked_sub(count).filter(|first| *first >= floor);
                let items = self.stack.split_off(first.ok_or("a tuple of more than the stack holds")?);
                self.push(Value::Tuple(items));
            }
            b't' => {
                let items = self.pop_mark()?;
                self.push(Value::Tuple(items));
            }
            b']' => self.push(Value::List(Vec::new())),
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Value::List(items));
            }
            b'a' => {
                let item = self.pop()?;
                if !self.is_opaque() {
                    self.list()?.push(item);
                }
            }
            // A set is read as a list of what is in it.
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                if !self.is_opaque() {
                    self.list()?.extend(items);
                }
            }
            0x8f => self.push(Value::List(Vec::new())),
            0x91 => {
                let items = self.pop_mark()?;
                self.push(Value::List(items));
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                let items = pairs(self.pop_mark()?)?;
                self.push(Value::Dict(items));
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                if !self.is_opaque() {
                    self.dict()?.push((key, value));
                }
            }
            b'u' => {
                let items = pairs(self.pop_mark()?)?;
                if !self.is_opaque() {
                    self.dict()?.extend(items);
                }
            }

            b'q' => {
                let place = self.take(1)?[0];
                self.remember(place.into())?;
            }
            b'r' => {
                let place = u32::from_le_bytes(self.array()?);
                self.remember(place.into())?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            b'h' => {
                let place = self.take(1)?[0];
                self.recall(place.into())?;
            }
            b'j' => {
                let place = u32::from_le_bytes(self.array()?);
                self.recall(place.into())?;
            }

            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                let id = self.heap.global(&module, &name)?;
                self.stack.push(id);
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (self.heap.get(module), self.heap.get(name))
                else {
                    return Err("the name of a type is no text".into());
                };
                // A long text is not copied again and again to be told that it is no name.
                if module.len() > MOST_NAME || name.len() > MOST_NAME {
                    return Err(format!("the name of a type has {} bytes", module.len() + name.len()));
                }
                let (module, name) = (module.clone(), name.clone());
                let id = self.heap.global(&module, &name)?;
                self.stack.push(id);
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = rebuild::storage(self.heap, id)?;
                self.push(storage);
            }
            b'R' => {
                let arguments = self.pop()?;
                let callee = self.pop()?;
                let value = rebuild::call(self.heap, callee, arguments)?;
                if let Value::Dict(items) = &value {
                    // A list of entries is copied, and a stream could ask for copies without end.
                    self.copied += items.len();
                    if self.copied > self.bytes.len() {
                        return Err("it copies the same entries over and over".into());
                    }
                }
                self.push(value);
            }
            b'b' => {
                // Attributes, as the `_metadata` of a state_dict: only dicts and objects may have them, and they are let go.
                let _attributes = self.pop()?;
                if !self.is_opaque() {
                    self.dict().map_err(|_| "it gives attributes to what is no dict, which is not read")?;
                }
            }
            // What makes an object of a class: its place is taken by the class's name.
            0x81 => {
                let _arguments = self.pop()?;
                let class = self.pop()?;
                let object = rebuild::object(self.heap, class)?;
                self.push(object);
            }
            0x92 => {
                let (_named, _arguments) = (self.pop()?, self.pop()?);
                let class = self.pop()?;
                let object = rebuild::object(self.heap, class)?;
                self.push(object);
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                let _arguments = self.pop_mark()?;
                let class = self.heap.global(&module, &name)?;
                let object = rebuild::object(self.heap, class)?;
                self.push(object);
            }
            b'o' => {
                let items = self.pop_mark()?;
                let class = *items.first().ok_or("an object of no class")?;
                let object = rebuild::object(self.heap, class)?;
                self.push(object);
            }
            other => return Err(format!("opcode {} is refused: {}", name_of(other), REFUSED)),
        }
        Ok(None)
    }

    fn take(&mut self, count: usize) -> Outcome<&[u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            return Err(if self.bytes.len() >= MOST_BYTES {
                format!("it is longer than {} MiB", MOST_BYTES >> 20)
            } else {
                format!(
                    "it is cut short: {count} more bytes are needed, {} are there",
                    self.bytes.len() - self.at
                )
            });
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("take gives as many bytes as it is asked for"))
    }

    fn length4(&mut self) -> Outcome<usize> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn line(&mut self) -> Outcome<String> {
        let rest = &self.bytes[self.at..];
        let Some(length) = rest.iter().take(256).position(|byte| *byte == b'\n') else {
            return Err("the name of a type does not end".into());
        };
        let text = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.at += length + 1;
        Ok(text)
    }

    /// A two's complement number of `length` bytes.
    fn long(&mut self, length: usize) -> Outcome<()> {
        let bytes = self.take(length)?;
        let value = if length <= 8 {
            let filler = if bytes.last().is_some_and(|top| *top >= 0x80) { 0xff } else { 0 };
            let mut wide = [filler; 8];
            wide[..length].copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(wide))
        } else {
            Value::Long(bytes.to_vec())
        };
        self.push(value);
        Ok(())
    }

    /// A text, or bytes that stand for one (Python 2 wrote its keys so).
    fn text(&mut self, length: usize, unicode: bool) -> Outcome<()> {
        let bytes = self.take(length)?;
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) if unicode => return Err("a text is no UTF-8".into()),
            // Bytes that are no text: each stands for the character of its number, as in Python's latin1.
            Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
        };
        self.push(Value::Text(text));
        Ok(())
    }

    fn push(&mut self, value: Value) {
        let id = self.heap.push(value);
        self.stack.push(id);
    }

    /// What lies below the last mark is out of reach.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Outcome<Id> {
        if self.stack.len() <= self.floor() {
            return Err("it takes from an empty stack".into());
        }
        Ok(self.stack.pop().expect("it was checked to hold a value"))
    }

    fn pop_mark(&mut self) -> Outcome<Vec<Id>> {
        let mark = self.marks.pop().ok_or("it goes back to a mark that is not there")?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&mut self) -> Outcome<&mut Value> {
        let top = *self.stack.last().ok_or("the stack is empty")?;
        Ok(self.heap.get_mut(top))
    }

    /// Whether the top of the stack stands for an object that was not made, which takes anything.
    fn is_opaque(&self) -> bool {
        self.stack.last().is_some_and(|top| matches!(self.heap.get(*top), Value::Opaque(_)))
    }

    fn list(&mut self) -> Outcome<&mut Vec<Id>> {
        match self.top()? {
            Value::List(items) => Ok(items),
            other => Err(format!("it appends to {}", other.kind())),
        }
    }

    fn dict(&mut self) -> Outcome<&mut Vec<(Id, Id)>> {
        match self.top()? {
            Value::Dict(items) => Ok(items),
            other => Err(format!("it sets an entry of {}", other.kind())),
        }
    }

    fn remember(&mut self, place: u64) -> Outcome<()> {
        let top = *self.stack.last().ok_or("the stack is empty")?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn recall(&mut self, place: u64) -> Outcome<()> {
        let id = *self.memo.get(&place).ok_or_else(|| format!("nothing was remembered at {place}"))?;
        self.stack.push(id);
        Ok(())
    }
}

fn pairs(items: Vec<Id>) -> Outcome<Vec<(Id, Id)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("a key has no value".into());
    }
    Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}

fn name_of(opcode: u8) -> String {
    let name = match opcode {
        0x82..=0x84 => "EXT",
        b'P' => "PERSID",
        b'F' | b'I' | b'L' | b'S' | b'V' | b'p' | b'g' => "of protocol 0",
        0x97 | 0x98 => "of a buffer",
        _ => return format!("0x{opcode:02x}"),
    };
    format!("{name} (0x{opcode:02x})")
}
