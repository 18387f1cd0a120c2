/* warp.cpp: where the lanes of a warp meet. See include/on_cpu/warp.h.
 *
 * A meeting is known by its warp and its mask: parts of a warp can each have one, and lanes that are ahead
 * can already wait for the whole warp.
 */
#include "include/on_cpu/warp.h"

#include "block.h"
#include "sanitizer_hooks.h"

namespace on_cpu {

struct meeting {
    const warp_operation *operation;
    unsigned arrived, generation;
    warp_call call;
    char order[2][2];     /* for the thread sanitizer: [block's turn][generation's turn] */
};
struct warp_meetings {
    unsigned open;        /* bit i: at meetings[i] somebody waits; no more than there are lanes */
    meeting meetings[WARP];
};
static warp_meetings warps[WARPS_MAX];

/* The open meeting with this mask, else one that is free. */
static meeting &meeting_of(warp_meetings &warp, unsigned mask) {
    for (unsigned rest = warp.open; rest; rest &= rest - 1) {
        meeting &m = warp.meetings[__builtin_ctz(rest)];
        if (m.call.mask == mask) return m;
    }
    return warp.meetings[__builtin_ctz(~warp.open)];
}

void warps_reset(void) {
    for (warp_meetings &warp : warps) {
        warp.open = 0;
        for (meeting &m : warp.meetings) m.arrived = 0;
    }
}

void collective(const warp_operation &operation, unsigned mask, const lane_call &mine, const char *file,
                int line) {
    const unsigned linear = current->linear, warp = linear / WARP, lane = linear % WARP;
    if (warp == block.size / WARP && block.size % WARP != 0) mask &= (1u << block.size % WARP) - 1;
    if (!(mask >> lane & 1))
        fail(file, line, "%s: lane %u is not in its own mask %08x", operation.name, lane, mask);
    warp_meetings &all = warps[warp];
    meeting &m = meeting_of(all, mask);
    const unsigned place = 1u << (&m - all.meetings);
    if (m.arrived == 0) {
        m.operation = &operation;
        m.call.mask = mask;
        m.call.file = file;
        m.call.line = line;
    } else if (m.operation != &operation || !same_place(file, line, m.call.file, m.call.line)) {
        fail(file, line,
             "lanes of one warp meet in different collectives with mask %08x: %s here, %s at %s:%d", mask,
             operation.name, m.operation->name, m.call.file, m.call.line);
    }
    m.call.lanes[lane] = &mine;
    m.arrived |= 1u << lane;
    char *const order = &m.order[block.turn][m.generation & 1];
    if (operation.orders_memory) release(order);
    if (m.arrived != mask) {
        all.open |= place;
        wait_in(operation.name, file, line);
    } else {
        operation.perform(m.call);
        m.arrived = 0;
        all.open &= ~place;
        m.generation++;
        for (unsigned rest = mask & ~(1u << lane); rest; rest &= rest - 1)
            wake(warp * WARP + (unsigned)__builtin_ctz(rest));
    }
    if (operation.orders_memory) acquire(order);
}

}   // namespace on_cpu
