/* A CGI program in C: what main prints is the response. */
#include <stdio.h>
#include <stdlib.h>

static void show(const char *name) {
    const char *value = getenv(name);
    printf("%s=%s\n", name, value ? value : "");
}

int main(void) {
    puts("Content-Type: text/plain; charset=utf-8\n");
    puts("Hello from C.");
    show("REQUEST_METHOD");
    show("PATH_INFO");
    show("QUERY_STRING");
    show("CONTENT_LENGTH");
    /* The request body, of any size: it goes back as it comes. */
    static char block[65536];
    size_t bytes;
    while ((bytes = fread(block, 1, sizeof block, stdin)) > 0) {
        fwrite(block, 1, bytes, stdout);
    }
    return ferror(stdin) || fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
}
