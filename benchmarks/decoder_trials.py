"""Trains the decoder of the model in the package further, with frozen codes and another output.

    python -m benchmarks.decoder_trials VARIANT STEPS RATE

VARIANT is base, mlp, map, ch64, second, wide1 or local, or several of them joined.
"""
import sys, time, numpy as np, jax, jax.numpy as jnp, optax, pivq_jax
import flax.linen as nn
from flax import traverse_util
import pivq_jax.model.decoder as D
from pivq_jax.model.pivq import pivq_from_config
from pivq_jax.model.primitives import dense, gelu, LayerNorm
from pivq_jax.training.build import dataset_from_config
from pivq_jax.training.optimizer import make_optimizer
from pivq_jax.evaluation.distribution import compare_features
from pivq_jax.evaluation.features import feature_extractor
from pivq_jax.evaluation.neighbours import nearest_neighbours
from pivq_jax.evaluation.reconstruction import encode_split
variant,steps,rate=sys.argv[1],int(sys.argv[2]),float(sys.argv[3])
m=pivq_jax.from_pretrained('toon_faces')
C=64 if 'ch64' in variant else 32
class ConvOutput(nn.Module):
    patch_size:int; channels:int; dtype:jnp.dtype=jnp.float32
    @nn.compact
    def __call__(self,grid):
        f=self.patch_size//2
        if 'mlp' in variant:
            h=gelu(dense(512,self.dtype,'wide')(grid))
            x=dense(self.channels*f**2,self.dtype,'expand')(grid)+nn.Dense(self.channels*f**2,name='wide_out',kernel_init=nn.initializers.zeros)(h)
        else: x=dense(self.channels*f**2,self.dtype,'expand')(grid)
        x=D.depth_to_space(x,f)
        if 'map' in variant:
            x=x+self.param('places',nn.initializers.zeros,x.shape[1:])
        y=nn.Conv(self.channels,(3,3),dtype=self.dtype,name='conv')(gelu(x)); x=x+y
        if 'second' in variant:
            y=nn.Conv(self.channels,(3,3),dtype=self.dtype,name='conv2',kernel_init=nn.initializers.zeros)(gelu(x)); x=x+y
        if 'wide1' in variant:
            h=nn.Dense(128,name='w1')(x); x2=nn.Dense(12,name='w2',kernel_init=nn.initializers.zeros)(gelu(h))
        z=nn.Conv(12,(3,3),dtype=jnp.float32,name='pixels')(gelu(x))
        if 'wide1' in variant: z=z+x2
        if 'local' in variant:  # a linear layer of its own for each place, from the token
            k=self.param('local_kernel',nn.initializers.zeros,(64,grid.shape[-1],192))
            b=grid.shape[0]
            l=jnp.einsum('btc,tcp->btp',grid.reshape(b,64,-1),k).reshape(b,8,8,192)
            return D.depth_to_space(z,2)+D.depth_to_space(l,8)
        return D.depth_to_space(z,2)
D.ConvOutput=ConvOutput
cfg=m.config
model=pivq_from_config(cfg)
if C!=32:
    model=model.clone(output_channels=C)
ds=dataset_from_config(cfg); ntr=10000
tr=[ds.train[i] for i in range(ntr)]
x=np.stack([t['image'] for t in tr]); codes=np.asarray(encode_split(m,tr,200))
test=[ds.test[i] for i in range(1000)]; xt=np.stack([t['image'] for t in test]); ct=np.asarray(encode_split(m,test,200))
init=model.init(jax.random.key(0),jnp.zeros((1,64,64,3)))['params']['decoder']
old=traverse_util.flatten_dict(m.params['decoder']); new=traverse_util.flatten_dict(init)
kept=0
for k,v in new.items():
    if k in old and old[k].shape==v.shape: new[k]=jnp.asarray(old[k]); kept+=1
    elif 'output' in k and k in old and C!=32:
        o=np.asarray(old[k]); z=np.asarray(v).copy()
        # embed the old head in the wider one
        if k[-2]=='expand':
            if z.ndim==2:
                z=z.reshape(z.shape[0],16,C)*.1; z[:,:,:32]=o.reshape(o.shape[0],16,32); z=z.reshape(z.shape[0],-1)
            else: z=z.reshape(16,C); z[:,:32]=o.reshape(16,32); z=z.reshape(-1)
        elif k[-2]=='conv':
            if z.ndim==4: z*=.3; z[:,:,32:,:32]=0; z[:,:,:32,:32]=o
            else: z[:32]=o
        elif k[-2]=='pixels': z[:]=0; z[:,:,:32]=o
        new[k]=jnp.asarray(z)
    else: print('new',k,v.shape)
params=traverse_util.unflatten_dict(new)
rest={k:v for k,v in m.params.items() if k!='decoder'}
cb=jnp.asarray(m.params['quantizer']['codebook'])
opt,_=make_optimizer(name='muon',steps=steps,learning_rate=rate/4,muon_learning_rate=rate,momentum=.95,warmup_steps=50,weight_decay=.01,clip_norm=1.0)
def fwd(p,c): return model.apply({'params':{**rest,'decoder':p}},cb[c],method='decode_vectors')
def loss(p,c,y):
    o=fwd(p,c); e=o-y; return jnp.mean(jnp.abs(e))+.5*jnp.mean(e**2)
@jax.jit
def step(p,s,e,c,y):
    y=y.astype(jnp.float32)/127.5-1
    l,g=jax.value_and_grad(loss)(p,c,y); u,s=opt.update(g,s,p); p=optax.apply_updates(p,u)
    return p,s,jax.tree.map(lambda a,b:.99*a+.01*b,e,p),l
jf=jax.jit(fwd)
def psnr(p):
    o=np.concatenate([np.asarray(jf(p,ct[i:i+100])) for i in range(0,1000,100)]); o=np.round((np.clip(o,-1,1)+1)*127.5)
    return float((10*np.log10(255**2/((o-xt)**2).reshape(1000,-1).mean(1))).mean())
print(variant,'kept',kept,'start',psnr(params),flush=True)
s=opt.init(params); e=params; r=np.random.default_rng(0); t=time.time(); ls=[]
for i in range(steps):
    if i==20: t=time.time()
    b=r.integers(0,ntr,16); params,s,e,l=step(params,s,e,codes[b],x[b]); ls.append(l)
    if i%250==249: print(i+1,float(np.mean(ls[-250:])),psnr(e),f'{(time.time()-t)/(i-19)*1e3:.0f} ms',flush=True)
rt=xt; ex=feature_extractor('vgg'); real=ex.extract(rt); fx=ex.extract(x[:1000])
radii=nearest_neighbours(real,real,6).distances[:,5]
o=np.concatenate([np.asarray(jf(e,codes[i:i+100])) for i in range(0,1000,100)]); o=np.round((np.clip(o,-1,1)+1)*127.5).astype(np.uint8)
f=ex.extract(o); d=f-fx; q=compare_features(real,f,5)
print(f"RESULT {variant} {steps} {rate} test psnr {psnr(e):.2f} err {np.mean((d**2).sum(-1))/np.median(radii)**2:.4f} mean-part {((d.mean(0))**2).sum()/np.median(radii)**2:.4f} fid {q['fid']:.4f} den {q['density']:.3f} cov {q['coverage']:.3f}")
