//! The compiled code of an app: another app has it, or the cache, or it is compiled now.

use std::mem::{Discriminant, discriminant};
use std::sync::{Arc, PoisonError};

use anyhow::Context;

use super::cache::{Code, Target};
use super::compile::Failure;
use super::content::Content;
use super::inspect;
use super::load::{Loader, Order, Origin, Outcome};
use super::sleeper::Shelf;
use crate::config::{AppSpec, Instances};
use crate::guest::Kind;
use crate::limits::Limits;
use crate::sandbox::{Uses, Variant};

/// A component: by the hash of its file, and the policy on its instances, whatever the numbers in it.
pub(super) type Wanted = (String, Discriminant<Instances>);

/// A component that was compiled.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) shelf: Arc<Shelf>,
    pub(super) kind: Kind,
    pub(super) uses: Uses,
    /// Why its instances are not rewound, though that is wanted.
    pub(super) not_rewound: Option<String>,
}

/// What the compiler's process has made.
enum Compiled {
    Code(Code),
    NotRewound(String),
}

impl Loader {
    /// The compiled component: shared, from the cache, or new. With it what was loaded just now.
    pub(super) async fn code(
        self: &Arc<Self>,
        order: &Arc<Order>,
        spec: &AppSpec,
        content: Content,
    ) -> Result<(Known, Option<Arc<Code>>, Origin), Outcome> {
        let wanted = (content.code_hash.clone(), discriminant(&spec.instances));
        let cell = {
            let mut components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(components.entry(wanted).or_default())
        };
        let (mut origin, mut loaded) = (Origin::Shared, None);
        let mut put = |hash: &str, variant, code| {
            let shelf = Shelf::new(hash, variant);
            loaded = Some(shelf.put(code));
            shelf
        };
        let code = cell
            .get_or_try_init(|| async {
                let (hash, owned) = (content.code_hash.clone(), content.code);
                let (kind, abi, uses) = self
                    .by_hand(move |_| {
                        let found =
                            inspect::outline(&owned).map_err(|refusal| Outcome::Refused(refusal.to_string()))?;
                        Ok((found.kind, found.abi, found.uses))
                    })
                    .await?;
                // One that cannot be settled is refused when that comes.
                let settled = kind.settle(spec.clone());
                let instances = settled.map_or(Instances::Fresh, |spec| spec.instances);
                let passes = self.compiler.passes();
                let mut variant = Variant::of(abi, instances, passes);
                let mut not_rewound = None;
                if variant == Variant::Rewind {
                    match self.compiled(order, &spec.limits, &hash, variant, &mut origin).await? {
                        Compiled::Code(code) => {
                            return Ok(Known { shelf: put(&hash, variant, code), kind, uses, not_rewound });
                        }
                        Compiled::NotRewound(reason) => not_rewound = Some(reason),
                    }
                    variant = Variant::of(abi, Instances::Fresh, passes);
                }
                match self.compiled(order, &spec.limits, &hash, variant, &mut origin).await? {
                    Compiled::Code(code) => Ok(Known { shelf: put(&hash, variant, code), kind, uses, not_rewound }),
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
        let cached = self.by_hand(move |loader| Ok(loader.cache.load(loader.target(variant)?, &owned))).await?;
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
        let slot = self.compiler.slot().await;
        let content = self.read_again(order, limits).await?;
        let output = self
            .by_hand(|loader| {
                let output = loader.cache.temp();
                output.map_err(|error| Outcome::Passing(format!("cannot write to the cache: {error}")))
            })
            .await?;
        // What is compiled is what was inspected and what the cache will call it: else one tenant could plant code for the
        // hash of another's file.
        if content.code_hash != hash {
            return Err(Outcome::Moved);
        }
        match self.compiler.compile(&slot, &content.code, variant, limits, &output).await {
            Err(Failure::NotRewound(reason)) => return Ok(Compiled::NotRewound(reason)),
            compiled => compiled?,
        }
        drop((slot, content));
        self.by_hand(move |loader| {
            let target = loader.target(variant)?;
            loader
                .cache
                .keep(target, &hash, output)
                .map_err(|error| Outcome::Passing(format!("cannot write to the cache: {error:#}")))?;
            let loaded = loader.cache.load_new(target, &hash);
            let loaded = loaded.map_err(|error| Outcome::Refused(format!("it does not fit this host: {error:#}")))?;
            Ok(Compiled::Code(loaded))
        })
        .await
    }

    /// Code that was compiled before: in memory, or in the cache.
    ///
    /// # Errors
    /// Where the cache has lost it.
    pub(super) async fn code_of(self: &Arc<Self>, shelf: &Arc<Shelf>) -> anyhow::Result<Arc<Code>> {
        if let Some(code) = shelf.code() {
            return Ok(code);
        }
        let _hand = self.hands.acquire().await;
        let (loader, shelf) = (Arc::clone(self), Arc::clone(shelf));
        tokio::task::spawn_blocking(move || loader.read_code(&shelf)).await?
    }

    /// Reads it from the cache.
    pub(super) fn read_code(&self, shelf: &Shelf) -> anyhow::Result<Arc<Code>> {
        let engine = self.engine.wasmtime(shelf.variant)?;
        // Where it was linked before, it was judged before.
        let judge = if shelf.is_proven() { None } else { self.engine.judge(engine) };
        let loaded = self.cache.load(Target { engine, variant: shelf.variant, judge }, &shelf.hash);
        if loaded.is_none() {
            // Whoever loads such an app again compiles it again.
            let mut components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
            components.retain(|_, cell| cell.get().is_none_or(|code| code.shelf.hash != shelf.hash));
        }
        Ok(shelf.put(loaded.context("its compiled code is not in the cache any more: put its file there again")?))
    }

    /// The engine that runs components of this variant.
    fn target(&self, variant: Variant) -> Result<Target<'_>, Outcome> {
        let engine = self.engine.wasmtime(variant).map_err(|error| Outcome::Passing(format!("{error:#}")))?;
        Ok(Target { engine, variant, judge: self.engine.judge(engine) })
    }
}
