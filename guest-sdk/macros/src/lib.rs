//! The `#[wasgi::application]` attribute: makes a function the application that a component exports.

use proc_macro::TokenStream;
use quote::quote;
use syn::{Error, FnArg, ItemFn, parse_macro_input, spanned::Spanned};

/// Makes a function the application of this component.
///
/// The function takes `(Environ, StartResponse)`, or with the feature `http` one `http::Request<wasgi::Input>`. See the
/// documentation of the crate `wasgi`.
#[proc_macro_attribute]
pub fn application(attributes: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as ItemFn);
    if !attributes.is_empty() {
        let attributes = proc_macro2::TokenStream::from(attributes);
        return Error::new(attributes.span(), "#[wasgi::application] takes no arguments").into_compile_error().into();
    }
    expand(&function).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(function: &ItemFn) -> syn::Result<proc_macro2::TokenStream> {
    let signature = &function.sig;
    if let Some(token) = &signature.asyncness {
        let why =
            "an application is a plain function: an instance serves one call at a time, so there is nothing to await";
        return Err(Error::new(token.span(), why));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new(signature.generics.span(), "an application cannot be generic"));
    }
    if let Some(FnArg::Receiver(receiver)) = signature.inputs.first() {
        return Err(Error::new(receiver.span(), "an application is a free function, without self"));
    }
    let name = &signature.ident;
    let call = match signature.inputs.len() {
        2 => quote!(::wasgi::__private::answer(#name(environ, start_response))),
        1 => quote!(::wasgi::http::serve(environ, start_response, #name)),
        _ => {
            let why =
                "an application takes (environ: Environ, start_response: StartResponse), or one http::Request<Input>";
            return Err(Error::new(signature.inputs.span(), why));
        }
    };
    // The export glue exists on wasm32 only: natively the function stays what it is, for unit tests.
    Ok(quote! {
        #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code, reason = "exported on wasm32 only"))]
        #function

        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "exporting a symbol is unsafe; the generated glue upholds the component ABI")]
        const _: () = {
            struct App;
            impl ::wasgi::__private::App for App {
                fn call(
                    environ: ::wasgi::Environ,
                    start_response: ::wasgi::StartResponse,
                ) -> ::wasgi::Result<::wasgi::Body> {
                    #call
                }
            }
            type Exported = ::wasgi::__private::Exported<App>;
            ::wasgi::__private::bindings::export_application!(Exported);
        };
    })
}
