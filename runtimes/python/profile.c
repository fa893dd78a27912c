/* The run-time half of profile-guided optimisation, for a module without files: training.py reads it out of memory.
 *
 * Linked into the training build alone, in place of the compiler's own profile library. Values at a site (called
 * functions, lengths of memory operations) are counted in one open-addressing table; what finds no room is not counted.
 */
#include <stdint.h>

enum { TABLE_LOG2 = 18, PROBES = 64, LONGEST = 1024 };

extern char __start___llvm_prf_cnts[], __stop___llvm_prf_cnts[];
extern char __start___llvm_prf_data[], __stop___llvm_prf_data[];
extern char __start___llvm_prf_names[], __stop___llvm_prf_names[];

/* naming it tells the compiler that there is a run-time library */
int __llvm_profile_runtime;

struct counted_value {
    uint32_t function, site;
    uint64_t value, count;
};

static struct counted_value values[1 << TABLE_LOG2];

static void
count(uint64_t value, void *function, uint32_t site)
{
    uint32_t key = (uint32_t)(uintptr_t)function;
    uint32_t hash = key * 2654435761u ^ site * 2654404609u ^ (uint32_t)value * 2246822519u;
    for (uint32_t probe = 0; probe < PROBES; probe++) {
        struct counted_value *entry = &values[(hash + probe) & ((1 << TABLE_LOG2) - 1)];
        if (entry->function == 0) {
            *entry = (struct counted_value){key, site, value, 1};
            return;
        }
        if (entry->function == key && entry->site == site && entry->value == value) {
            entry->count++;
            return;
        }
    }
}

void
__llvm_profile_instrument_target(uint64_t value, void *function, uint32_t site)
{
    count(value, function, site);
}

void
__llvm_profile_instrument_memop(uint64_t length, void *function, uint32_t site)
{
    count(length > LONGEST ? LONGEST : length, function, site);
}

/* The addresses of the profile's parts: counters, data, names (start and end of each), then the table of values. */
__attribute__((export_name("wasmeval_profile"))) uint32_t
wasmeval_profile(int part)
{
    char *parts[] = {
        __start___llvm_prf_cnts, __stop___llvm_prf_cnts, __start___llvm_prf_data, __stop___llvm_prf_data,
        __start___llvm_prf_names, __stop___llvm_prf_names, (char *)values, (char *)(values + (1 << TABLE_LOG2)),
    };
    return (uint32_t)(uintptr_t)parts[part];
}
