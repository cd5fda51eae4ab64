//! The compiled code of an app: another app has it, or the cache, or it is compiled now. The bytes of a file are in memory only while
//! somebody has a turn: what waits for one is read again.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::sync::{Arc, MutexGuard, PoisonError};

use anyhow::Context;
use tokio::sync::OnceCell;

use super::cache::{Code, Target};
use super::compile::Failure;
use super::content::read_wasm;
use super::inspect;
use super::load::{Loader, Order, Origin, Outcome};
use super::sleeper::Shelf;
use super::turns::Turn;
use crate::config::{AppSpec, Instances, tenant_name};
use crate::guest::Kind;
use crate::limits::Limits;
use crate::sandbox::{Abi, Uses, Variant};

/// A component: by the hash of its file, and the policy on its instances, whatever the numbers in it.
pub(super) type Wanted = (String, Discriminant<Instances>);

/// What an app of this code wants.
pub(super) fn wanted(hash: &str, spec: &AppSpec) -> Wanted {
    (hash.to_owned(), discriminant(&spec.instances))
}

/// A component that was compiled.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) shelf: Arc<Shelf>,
    pub(super) kind: Kind,
    pub(super) uses: Uses,
    /// Why its instances are not rewound, though that is wanted.
    pub(super) not_rewound: Option<String>,
}

/// What a first look at a file's code comes to.
pub(super) enum Found {
    /// It is compiled.
    Known(Known),
    New(Outline),
}

/// What is to be known of code to compile it.
pub(super) struct Outline {
    kind: Kind,
    abi: Abi,
    uses: Uses,
}

/// All components that apps have.
pub(super) type Components = HashMap<Wanted, Arc<OnceCell<Known>>>;

/// A component that was compiled; with it its code, where that was loaded just now, and from where.
pub(super) type Coded = (Known, Option<Arc<Code>>, Origin);

/// What the compiler's process has made.
enum Compiled {
    Code(Code),
    NotRewound(String),
}

impl Compiled {
    /// Where it does not have to be put back.
    fn code(self) -> Result<Code, Outcome> {
        match self {
            Self::Code(code) => Ok(code),
            Self::NotRewound(reason) => Err(Outcome::Refused(reason)),
        }
    }
}

impl Loader {
    /// Looks at code, unless it is known. Blocks.
    ///
    /// # Errors
    /// If it would not deploy.
    pub(super) fn find(&self, wanted: &Wanted, code: &[u8]) -> Result<Found, Outcome> {
        if let Some(known) = self.components().get(wanted).and_then(|cell| cell.get().cloned()) {
            return Ok(Found::Known(known));
        }
        let found = inspect::outline(code).map_err(|refusal| Outcome::Refused(refusal.to_string()))?;
        Ok(Found::New(Outline { kind: found.kind, abi: found.abi, uses: found.uses }))
    }

    /// The compiled component: shared, from the cache, or new.
    pub(super) async fn code(
        self: &Arc<Self>,
        order: &Arc<Order>,
        spec: &AppSpec,
        hash: &str,
        found: Found,
    ) -> Result<Coded, Outcome> {
        let Outline { kind, abi, uses } = match found {
            Found::Known(known) => return Ok((known, None, Origin::Shared)),
            Found::New(outline) => outline,
        };
        let cell = Arc::clone(self.components().entry(wanted(hash, spec)).or_default());
        // One that cannot be settled is refused when that comes.
        let settled = kind.settle(spec.clone());
        let instances = settled.map_or(Instances::Fresh, |spec| spec.instances);
        let variant = Variant::of(abi, instances, self.compiler.passes());
        // Nobody waits in a tenant's line while others wait for them, whose own turn may have come: who is in the cell has its turn.
        let tenant = tenant_name(&order.name);
        let at_hand = self.by_hand(tenant, {
            let (cell, hash) = (Arc::clone(&cell), hash.to_owned());
            move |loader| loader.at_hand(&cell, &hash, variant, (kind, uses))
        });
        if let Some(found) = at_hand.await? {
            return Ok(found);
        }
        let turn = self.compiler.turn(tenant).await;
        let (mut origin, mut loaded) = (Origin::Shared, None);
        let making = || async {
            let (variant, code, from, not_rewound) = match variant {
                Variant::Rewind => self.rewound(turn, order, &spec.limits, hash, abi).await?,
                other => {
                    let (_, compiled, from) = self.compiled(turn, order, &spec.limits, hash, other).await?;
                    (other, compiled.code()?, from, None)
                }
            };
            let shelf = Shelf::new(hash, variant);
            (origin, loaded) = (from, Some(shelf.put(code)));
            Ok::<_, Outcome>(Known { shelf, kind, uses, not_rewound })
        };
        let known = cell.get_or_try_init(making).await?.clone();
        Ok((known, loaded, origin))
    }

    /// What another app has by now, or the cache, for all who want it. Blocks.
    fn at_hand(
        &self,
        cell: &OnceCell<Known>,
        hash: &str,
        variant: Variant,
        (kind, uses): (Kind, Uses),
    ) -> Result<Option<Coded>, Outcome> {
        if let Some(known) = cell.get() {
            return Ok(Some((known.clone(), None, Origin::Shared)));
        }
        let Some(code) = self.cache.load(self.target(variant)?, hash) else { return Ok(None) };
        let shelf = Shelf::new(hash, variant);
        let code = shelf.put(code);
        let known = Known { shelf, kind, uses, not_rewound: None };
        // Where somebody else is about to set it, the code is in memory twice.
        let _ = cell.set(known.clone());
        Ok(Some((known, Some(code), Origin::Cached)))
    }

    /// What can be put back to where it began; else of which each call gets a fresh one, and why.
    async fn rewound(
        self: &Arc<Self>,
        turn: Turn,
        order: &Arc<Order>,
        limits: &Limits,
        hash: &str,
        abi: Abi,
    ) -> Result<(Variant, Code, Origin, Option<String>), Outcome> {
        let (turn, compiled, from) = self.compiled(turn, order, limits, hash, Variant::Rewind).await?;
        let reason = match compiled {
            Compiled::Code(code) => return Ok((Variant::Rewind, code, from, None)),
            Compiled::NotRewound(reason) => reason,
        };
        let variant = Variant::of(abi, Instances::Fresh, self.compiler.passes());
        let (_, compiled, from) = self.compiled(turn, order, limits, hash, variant).await?;
        Ok((variant, compiled.code()?, from, Some(reason)))
    }

    /// From the cache, or new, with a turn that it gives back.
    async fn compiled(
        self: &Arc<Self>,
        turn: Turn,
        order: &Arc<Order>,
        limits: &Limits,
        hash: &str,
        variant: Variant,
    ) -> Result<(Turn, Compiled, Origin), Outcome> {
        let owned = hash.to_owned();
        let cached = self.under(turn, move |loader| Ok(loader.cache.load(loader.target(variant)?, &owned)));
        match cached.await? {
            (turn, Some(code)) => Ok((turn, Compiled::Code(code), Origin::Cached)),
            (turn, None) => {
                let (turn, compiled) = self.compile(turn, order, limits, hash.to_owned(), variant).await?;
                Ok((turn, compiled, Origin::Compiled))
            }
        }
    }

    /// Compiles into the cache and loads it from there.
    async fn compile(
        self: &Arc<Self>,
        turn: Turn,
        order: &Arc<Order>,
        limits: &Limits,
        hash: String,
        variant: Variant,
    ) -> Result<(Turn, Compiled), Outcome> {
        let (turn, (content, output)) = self
            .under(turn, {
                let (order, limits) = (Arc::clone(order), limits.clone());
                move |loader| {
                    let content = read_wasm(&order, &limits)?;
                    let output = loader.cache.temp();
                    let failed = |error| Outcome::Passing(format!("cannot write to the cache: {error}"));
                    Ok((content, output.map_err(failed)?))
                }
            })
            .await?;
        // What is compiled is what was inspected and what the cache will call it: else one tenant could plant code for the
        // hash of another's file.
        if content.code_hash != hash {
            return Err(Outcome::Moved);
        }
        match self.compiler.compile(&turn, &content.code, variant, limits, &output).await {
            Err(Failure::NotRewound(reason)) => return Ok((turn, Compiled::NotRewound(reason))),
            compiled => compiled?,
        }
        drop(content);
        let kept = self.under(turn, move |loader| {
            let target = loader.target(variant)?;
            loader
                .cache
                .keep(target, &hash, output)
                .map_err(|error| Outcome::Passing(format!("cannot write to the cache: {error:#}")))?;
            let loaded = loader.cache.load_new(target, &hash);
            let loaded = loaded.map_err(|error| Outcome::Refused(format!("it does not fit this host: {error:#}")))?;
            Ok(Compiled::Code(loaded))
        });
        kept.await
    }

    /// Code that was compiled before: in memory, or in the cache. Blocks.
    ///
    /// # Errors
    /// Where the cache has lost it.
    pub(super) fn code_of(&self, shelf: &Shelf) -> anyhow::Result<Arc<Code>> {
        if let Some(code) = shelf.code() {
            return Ok(code);
        }
        let engine = self.engine.wasmtime(shelf.variant)?;
        // Where it was linked before, it was judged before.
        let judge = if shelf.is_proven() { None } else { self.engine.judge(engine) };
        let loaded = self.cache.load(Target { engine, variant: shelf.variant, judge }, &shelf.hash);
        if loaded.is_none() {
            // Whoever loads such an app again compiles it again.
            self.components().retain(|_, cell| cell.get().is_none_or(|code| code.shelf.hash != shelf.hash));
        }
        Ok(shelf.put(loaded.context("its compiled code is not in the cache any more: put its file there again")?))
    }

    pub(super) fn components(&self) -> MutexGuard<'_, Components> {
        self.components.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine that runs components of this variant.
    fn target(&self, variant: Variant) -> Result<Target<'_>, Outcome> {
        let engine = self.engine.wasmtime(variant).map_err(|error| Outcome::Passing(format!("{error:#}")))?;
        Ok(Target { engine, variant, judge: self.engine.judge(engine) })
    }
}
