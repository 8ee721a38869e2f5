/* declared.c: which weights a network of a configuration has, for those who make new ones. Calls nn. */
#include "pipeline.h"

static const char *const components[] = {"unet", "vae", "text_encoder"};

static mg_status build_unet(struct mg_graph *graph, const struct mg_json *config, const char *name,
                            struct mg_err *err) {
    struct mg_unet_config unet;
    const int64_t size = 1 << (MG_MAX_LEVELS - 1);
    MG_TRY(mg_unet_config_read(&unet, config, name, err));
    mg_unet_build(graph, &unet, mg_graph_input(graph, "sample", 1, size, size, unet.in_channels),
                  mg_graph_input(graph, "timesteps", 1, 1, 1, 1),
                  mg_graph_input(graph, "text", 1, 1, MG_TEXT_TOKENS, unet.cross_attention_dim));
    return mg_graph_status(graph);
}

static mg_status build_vae(struct mg_graph *graph, const struct mg_json *config, const char *name, struct mg_err *err) {
    struct mg_autoencoder vae;
    const int64_t size = 1 << (MG_MAX_LEVELS - 1);
    MG_TRY(mg_autoencoder_read(&vae, config, name, err));
    mg_autoencoder_encode_build(graph, &vae, mg_graph_input(graph, "x", 1, size, size, vae.image_channels));
    mg_autoencoder_decode_build(graph, &vae, mg_graph_input(graph, "z", 1, 1, 1, vae.latent_channels));
    return mg_graph_status(graph);
}

static mg_status build_text_encoder(struct mg_graph *graph, const struct mg_json *config, const char *name,
                                    struct mg_err *err) {
    struct mg_clip_config clip;
    MG_TRY(mg_clip_config_read(&clip, config, name, err));
    mg_clip_build(graph, &clip, mg_graph_input(graph, "ids", 1, 1, MG_TEXT_TOKENS, 1));
    return mg_graph_status(graph);
}

static mg_status build(struct mg_graph *graph, const char *component, const struct mg_json *config, const char *name,
                       struct mg_err *err) {
    if (!strcmp(component, components[0]))
        return build_unet(graph, config, name, err);
    if (!strcmp(component, components[1]))
        return build_vae(graph, config, name, err);
    if (!strcmp(component, components[2]))
        return build_text_encoder(graph, config, name, err);
    return mg_fail(err, MG_ERR_ARGUMENT, "\"%s\" has no weights; known: %s, %s, %s", component, components[0],
                   components[1], components[2]);
}

mg_status mg_declared_weights(const char *component, const char *config, size_t length, const char *name,
                              mg_declared_weight_fn found, void *user, struct mg_err *err) {
    struct mg_arena arena;
    struct mg_weights weights = {.component = component};
    struct mg_graph graph;
    const struct mg_json *parsed;
    mg_status status;
    mg_arena_init(&arena);
    mg_arena_init(&weights.arena);
    mg_graph_init(&graph, &weights, err);
    MG_TRY_GOTO(mg_json_parse(&parsed, &arena, config, length, name, err));
    MG_TRY_GOTO(build(&graph, component, parsed, name, err));
    for (size_t i = 0; i < weights.count; i++)
        found(user, weights.list[i].key, weights.list[i].shape.dim, weights.list[i].shape.ndim);
done:
    mg_graph_free(&graph);
    mg_weights_close(&weights);
    mg_arena_free(&arena);
    return status;
}
