//! GET of one object and of a collection.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use holdfast_store::{Error, Revision};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Answer, Content, now};
use crate::error::{ApiError, ApiResult};
use crate::kept::Kept;
use crate::negotiation::Shape;
use crate::object::meta;
use crate::pieces::Pieces;
use crate::query::{Freshness, ListOptions, parse_revision};
use crate::registry::{Form, ResourceDef};
use crate::request::Request;
use crate::selectors::{FieldSelector, LabelSelector};
use crate::state::{Source, State};
use crate::table::{self, Include};

/// How many entries are read from the store at once when pages are made from it.
const BATCH: usize = 500;

/// Which objects are wanted; works on the served form.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Filter {
    /// Parses both selectors.
    pub(crate) fn parse(def: &ResourceDef, options: &ListOptions) -> ApiResult<Filter> {
        let labels = LabelSelector::parse(&options.label_selector).map_err(ApiError::bad_request)?;
        let fields = FieldSelector::parse(&options.field_selector).map_err(ApiError::bad_request)?;
        if let Some(field) = fields.fields().find(|field| !def.has_field(field)) {
            return Err(ApiError::bad_request(format!("field label not supported: {field}")));
        }
        Ok(Filter { labels, fields })
    }

    /// True if everything passes.
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// True if the object is wanted.
    pub(crate) fn matches(&self, def: &ResourceDef, object: &Kept) -> bool {
        if self.is_empty() {
            return true;
        }
        let fields = || match def.form {
            Form::Stored => self.fields.matches(|field| object.field(def, field)),
            // Of another view of the object other fields can be asked.
            Form::EventView | Form::Review => {
                let served = def.present(object.value());
                self.fields.matches(|field| def.field(&served, field).unwrap_or_default())
            }
        };
        self.labels.matches(&object.head) && (self.fields.is_empty() || fields())
    }
}

/// Objects of a list.
#[derive(Debug)]
pub(crate) struct Selection {
    /// As they are kept.
    pub(crate) objects: Vec<Arc<Kept>>,
    /// The state that they are from.
    pub(crate) revision: Revision,
    /// Token for the next page.
    pub(crate) next: Option<String>,
    /// How many follow; known only without selectors.
    pub(crate) remaining: Option<usize>,
    /// Set if the state may be stale.
    pub(crate) warning: Option<String>,
}

/// GET of one object.
pub(crate) async fn get(state: &State, request: &Request) -> ApiResult<Answer> {
    let freshness = match parse_revision(request.query.get("resourceVersion").unwrap_or_default())? {
        None => Freshness::Newest,
        Some(0) => Freshness::Any,
        Some(revision) => Freshness::AtLeast(revision),
    };
    let (object, warning) = state.read(&request.def, &request.namespace, &request.name, freshness).await?;
    let object = object.ok_or_else(|| ApiError::not_found(request.target()))?;
    let content: Content = match object.served(&request.def) {
        Some(text) if request.accepted.shape == Shape::Full => text.into(),
        _ => shape_one(request, request.def.present(object.value()))?.into(),
    };
    Ok(Answer { warnings: warning.into_iter().collect(), ..Answer::ok(content) })
}

/// One object in the shape that was asked for.
pub(crate) fn shape_one(request: &Request, served: Value) -> ApiResult<Value> {
    Ok(match request.accepted.shape {
        Shape::Table => {
            let include = Include::parse(request.query.get("includeObject"))?;
            let metadata = json!({"resourceVersion": meta(&served, "resourceVersion")});
            table::table(&request.def, metadata, &[served], include, true, now())
        }
        Shape::Metadata => table::metadata_only(&served),
        Shape::Full | Shape::Discovery(_) => served,
    })
}

/// GET of a collection.
pub(crate) async fn list(state: &State, request: &Request) -> ApiResult<Answer> {
    let def = &*request.def;
    let options = ListOptions::of(&request.query, false)?;
    let selection = select(state, request, &options).await?;
    let mut metadata = json!({"resourceVersion": selection.revision.to_string()});
    if let Some(next) = selection.next {
        metadata["continue"] = next.into();
        if let Some(remaining) = selection.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
    }
    let items = || selection.objects.iter().map(|object| def.present(object.value())).collect::<Vec<Value>>();
    let content: Content = match request.accepted.shape {
        Shape::Table => {
            let include = Include::parse(request.query.get("includeObject"))?;
            table::table(def, metadata, &items(), include, true, now()).into()
        }
        Shape::Metadata => table::metadata_list(metadata, &items()).into(),
        Shape::Full | Shape::Discovery(_) if def.form == Form::Stored => {
            Content::Text(text_of_list(def, &metadata, &selection.objects))
        }
        Shape::Full | Shape::Discovery(_) => {
            let kind =
                json!({"kind": def.list_kind, "apiVersion": def.api_version(), "metadata": metadata, "items": items()});
            kind.into()
        }
    };
    Ok(Answer { warnings: selection.warning.into_iter().collect(), ..Answer::ok(content) })
}

/// A list put together from the texts of its objects.
fn text_of_list(def: &ResourceDef, metadata: &Value, objects: &[Arc<Kept>]) -> Pieces {
    let mut head = json!({"apiVersion": def.api_version(), "kind": def.list_kind, "metadata": metadata}).to_string();
    head.pop();
    head += ",\"items\":[";
    let items = objects.iter().enumerate().flat_map(|(at, object)| {
        let comma = Bytes::from_static(if at > 0 { b"," } else { b"" });
        [comma, object.json.clone()]
    });
    Pieces::new(std::iter::once(Bytes::from(head)).chain(items).chain([Bytes::from_static(b"]}")]))
}

/// The objects that a list or a deletion of a collection means.
pub(crate) async fn select(state: &State, request: &Request, options: &ListOptions) -> ApiResult<Selection> {
    let def = &*request.def;
    let filter = Filter::parse(def, options)?;
    let scope = request.scope();
    if !options.next.is_empty() {
        let token = Token::decode(&options.next, &scope)?;
        return pages(state, def, &scope, &filter, options.limit, token).await;
    }
    let source = match options.freshness {
        Freshness::Exact(revision) => {
            let start = Token { revision: Some(revision), after: None };
            return pages(state, def, &scope, &filter, options.limit, start).await;
        }
        other => state.source(other).await?,
    };
    let warning = match source {
        Source::Store => {
            let start = Token { revision: None, after: None };
            return pages(state, def, &scope, &filter, options.limit, start).await;
        }
        Source::Stale(warning) => Some(warning),
        Source::Memory => None,
    };
    let (mut objects, revision) = state.feed.snapshot(def, &scope);
    objects.retain(|object| filter.matches(def, object));
    let total = objects.len();
    let mut next = None;
    if options.limit > 0 && total > options.limit {
        objects.truncate(options.limit);
        let after = objects.last().map(|object| object.key.clone());
        next = Some(Token { revision: Some(revision), after }.encode());
    }
    let remaining = filter.is_empty().then_some(total - objects.len());
    Ok(Selection { objects, revision, next, remaining, warning })
}

/// Where a paged list goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Token {
    /// Snapshot of the first page; none: the newest state.
    #[serde(rename = "r")]
    revision: Option<Revision>,
    /// Key of the last object.
    #[serde(rename = "k")]
    after: Option<String>,
}

impl Token {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(json!({"r": self.revision, "k": self.after}).to_string())
    }

    fn decode(text: &str, scope: &str) -> ApiResult<Token> {
        let broken =
            || ApiError::bad_request("continue key is not valid: it was not made by this server for this list");
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| broken())?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|_| broken())?;
        if token.after.as_deref().is_some_and(|key| !key.starts_with(scope)) { Err(broken()) } else { Ok(token) }
    }
}

/// Reads a page from the store's snapshot, which stays the same over all pages.
async fn pages(
    state: &State,
    def: &ResourceDef,
    scope: &str,
    filter: &Filter,
    limit: usize,
    mut at: Token,
) -> ApiResult<Selection> {
    let mut objects: Vec<Arc<Kept>> = Vec::new();
    loop {
        // One more than the page, so that a last page that is just full is known to be the last.
        let batch = if limit == 0 { 0 } else { BATCH.max(limit.saturating_add(1)) };
        let page = match state.store.list(scope, at.after.as_deref(), batch, at.revision).await {
            Ok(page) => page,
            Err(Error::Compacted { .. }) => {
                let next = Token { revision: None, after: at.after }.encode();
                return Err(ApiError::expired(
                    "The provided continue parameter or resourceVersion is too old to display a consistent list result. \
                     You can start a new list without the continue parameter, or use the continue token in this \
                     response's metadata to go on at the newest state",
                    Some(next),
                ));
            }
            Err(Error::Future { asked, current }) => return Err(ApiError::future_revision(asked, current)),
            Err(error) => return Err(error.into()),
        };
        at.revision = Some(page.revision);
        at.after = page.entries.last().map(|entry| entry.key.clone()).or(at.after);
        for entry in &page.entries {
            let object = state.keep(def, entry)?;
            if filter.matches(def, &object) {
                objects.push(object);
            }
        }
        let full = limit > 0 && objects.len() > limit;
        if full || !page.more {
            let mut next = None;
            if full {
                objects.truncate(limit);
                let after = objects.last().map(|object| object.key.clone());
                next = Some(Token { revision: at.revision, after }.encode());
            }
            return Ok(Selection { objects, revision: page.revision, next, remaining: None, warning: None });
        }
    }
}
