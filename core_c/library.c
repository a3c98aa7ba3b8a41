/* Opening the shared libraries of plugins. */
#include "plan.h"

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <stdio.h>
#include <windows.h>

void *pf_library_open(const char *path, const char **error) {
    static char text[64];
    wchar_t wide[32768];
    *error = NULL;
    HMODULE library = NULL;
    if (MultiByteToWideChar(CP_UTF8, 0, path, -1, wide, sizeof wide / sizeof wide[0]))
        library = LoadLibraryExW(wide, NULL, LOAD_WITH_ALTERED_SEARCH_PATH);
    if (!library) {
        snprintf(text, sizeof text, "Windows error %lu", GetLastError());
        *error = text;
    }
    return (void *)library;
}

void pf_library_close(void *library) { FreeLibrary((HMODULE)library); }

static pf_plugin_function find_entry(void *library) {
    return (pf_plugin_function)(uintptr_t)GetProcAddress((HMODULE)library, "pyframe_plugin");
}

#else
#include <dlfcn.h>

void *pf_library_open(const char *path, const char **error) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    *error = library ? NULL : dlerror();
    return library;
}

void pf_library_close(void *library) { dlclose(library); }

static pf_plugin_function find_entry(void *library) {
    return (pf_plugin_function)(uintptr_t)dlsym(library, "pyframe_plugin");
}

#endif

const pf_plugin *pf_library_plugin(void *library, int *has_entry) {
    const pf_plugin_function entry = find_entry(library);
    *has_entry = entry != NULL;
    return entry ? entry(pf_get_host()) : NULL;
}
