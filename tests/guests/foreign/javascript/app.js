// A `wasi:http` component as componentize-js makes it of a fetch handler. The last segment of the path names a behaviour.

addEventListener('fetch', (event) => event.respondWith(handle(event.request)));

async function handle(request) {
  const url = new URL(request.url);
  switch (url.pathname.split('/').pop()) {
    case 'hello':
      return new Response('hello from JavaScript', { headers: { 'content-type': 'text/plain' } });
    case 'request':
      return new Response(`${request.method} ${url.pathname}${url.search} ${request.headers.get('x-given')}`);
    case 'status':
      return new Response('a body', { status: Number(url.search.slice(1)), headers: { 'x-given': 'yes' } });
    case 'echo':
      return new Response(request.body);
    case 'outgoing':
      try {
        await fetch('http://elsewhere.example/secret');
        return new Response('answered');
      } catch (error) {
        return new Response(`refused: ${error.name}`);
      }
    case 'throw':
      throw new Error('secret reason');
    default:
      for (;;);
  }
}
