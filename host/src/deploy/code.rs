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

/// What the compiler's process has made.
enum Compiled {
    Code(Code),
    NotRewound(String),
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

    /// The compiled component: shared, from the cache, or new. With it what was loaded just now.
    pub(super) async fn code(
        self: &Arc<Self>,
        order: &Arc<Order>,
        spec: &AppSpec,
        hash: &str,
        found: Found,
    ) -> Result<(Known, Option<Arc<Code>>, Origin), Outcome> {
        let Outline { kind, abi, uses } = match found {
            Found::Known(known) => return Ok((known, None, Origin::Shared)),
            Found::New(outline) => outline,
        };
        let cell = Arc::clone(self.components().entry(wanted(hash, spec)).or_default());
        let (mut origin, mut loaded) = (Origin::Shared, None);
        let mut put = |hash: &str, variant, code| {
            let shelf = Shelf::new(hash, variant);
            loaded = Some(shelf.put(code));
            shelf
        };
        let code = cell
            .get_or_try_init(|| async {
                // One that cannot be settled is refused when that comes.
                let settled = kind.settle(spec.clone());
                let instances = settled.map_or(Instances::Fresh, |spec| spec.instances);
                let passes = self.compiler.passes();
                let mut variant = Variant::of(abi, instances, passes);
                let mut not_rewound = None;
                if variant == Variant::Rewind {
                    match self.compiled(order, &spec.limits, hash, variant, &mut origin).await? {
                        Compiled::Code(code) => {
                            return Ok(Known { shelf: put(hash, variant, code), kind, uses, not_rewound });
                        }
                        Compiled::NotRewound(reason) => not_rewound = Some(reason),
                    }
                    variant = Variant::of(abi, Instances::Fresh, passes);
                }
                match self.compiled(order, &spec.limits, hash, variant, &mut origin).await? {
                    Compiled::Code(code) => Ok(Known { shelf: put(hash, variant, code), kind, uses, not_rewound }),
                    Compiled::NotRewound(reason) => Err(Outcome::Refused(reason)),
                }
            })
            .await?
            .clone();
        Ok((code, loaded, origin))
    }

    /// From the cache, or new.
    async fn compiled(
        self: &Arc<Self>,
        order: &Arc<Order>,
        limits: &Limits,
        hash: &str,
        variant: Variant,
        origin: &mut Origin,
    ) -> Result<Compiled, Outcome> {
        let owned = hash.to_owned();
        let tenant = tenant_name(&order.name);
        let cached = self.by_hand(tenant, move |loader| Ok(loader.cache.load(loader.target(variant)?, &owned))).await?;
        *origin = if cached.is_some() { Origin::Cached } else { Origin::Compiled };
        match cached {
            Some(code) => Ok(Compiled::Code(code)),
            None => self.compile(order, limits, hash.to_owned(), variant).await,
        }
    }

    /// Compiles into the cache and loads it from there.
    async fn compile(
        self: &Arc<Self>,
        order: &Arc<Order>,
        limits: &Limits,
        hash: String,
        variant: Variant,
    ) -> Result<Compiled, Outcome> {
        let turn = self.compiler.turn(tenant_name(&order.name)).await;
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
            Err(Failure::NotRewound(reason)) => return Ok(Compiled::NotRewound(reason)),
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
        Ok(kept.await?.1)
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
